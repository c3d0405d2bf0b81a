"""Easy examples first: which example comes at an index, and when harder ones may come.

    promoted   The training examples stand in buckets of growing difficulty. Those of bucket b are
               drawn until the mean of a metric over the last `window` iterations exceeds
               `threshold`; then those of b + 1. The window is then empty: a bucket lasts for
               `window` iterations at least. A share `replay` of the draws is of earlier buckets.
    sorted     All of them once, the easiest first, as in a public GRPO run on SVAMP, which was
               "sorted by equation complexity"; equal ones, and further epochs, in the usual order.
    uniform    The usual order (order.py), whatever the difficulty.

What is remembered is where the current bucket began and the metric of its last iterations: an
example is a pure function of this, the seed and the index. Of the first i draws of a bucket exactly
⌊i · replay⌋ are of earlier ones; each of the two streams is a permutation per epoch.

No public system has published its numbers (buckets, threshold, window): these are this project's.
Known flaw: the metric is of all draws of an iteration, replayed ones among them, so that a large
`replay` promotes earlier than the bucket's own examples would.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.data.examples import DataError, Example
from grpo.data.order import example_at

Memory = Mapping[str, Any]  # integers and floats, as a checkpoint's JSON holds them
START: Memory = {"bucket": 0, "since": 0, "values": []}
OPERATOR = re.compile(r"[-+*/×÷]")


def pass_rate(example: Example) -> float:
    """How hard an example is by the share of completions of it that were right, as measured."""
    if "pass_rate" not in example:
        raise DataError(f"{example['id']}: has no pass_rate, which the curriculum goes by")
    return 1 - example["pass_rate"]


DIFFICULTY: dict[str, Callable[[Example], float]] = {
    "level": lambda example: example["level"],
    "length": lambda example: len(example["question"]),
    "operations": lambda example: sum(
        len(OPERATOR.findall(equation.partition("=")[0])) for equation in example["checkpoints"]
    ),
    "pass_rate": pass_rate,
}


ORDERS = ("uniform", "promoted", "sorted")


class Curriculum(NamedTuple):
    """Places of examples by difficulty, and how they are drawn."""

    buckets: tuple[tuple[int, ...], ...]  # the easiest first; within one as the dataset has them
    replay: float
    window: int
    threshold: float


def curriculum_of(section: Mapping[str, Any], examples: Sequence[Example]) -> Curriculum | None:
    """The curriculum of a section of the config; None where nothing is promoted."""
    if section["order"] != "promoted":
        return None
    buckets = buckets_of(examples, section["by"], section["buckets"])
    return Curriculum(buckets, section["replay"], section["window"], section["threshold"])


def buckets_of(
    examples: Sequence[Example], by: str, count: int | None
) -> tuple[tuple[int, ...], ...]:
    """The places of the examples in `count` buckets of about equal size; None: one per difficulty.

    Where equal ones would be cut apart, those that come first are in the easier bucket.
    """
    difficulty = [DIFFICULTY[by](example) for example in examples]
    if count is None:
        values = sorted(set(difficulty))
        return tuple(tuple(i for i, x in enumerate(difficulty) if x == value) for value in values)
    if count > len(examples):
        raise DataError(f"curriculum.buckets={count}: there are only {len(examples)} examples")
    ranked = sorted(range(len(examples)), key=lambda i: (difficulty[i], i))
    ends = [len(ranked) * n // count for n in range(count + 1)]
    return tuple(tuple(sorted(ranked[low:high])) for low, high in itertools.pairwise(ends))


def promoted_at(curriculum: Curriculum, memory: Memory, seed: int, index: int) -> int:
    """The place of the example at an index, counted over the whole stage."""
    bucket, i = memory["bucket"], index - memory["since"]
    own, earlier = curriculum.buckets[bucket], curriculum.buckets[:bucket]
    replayed, with_this = (math.floor(n * curriculum.replay) for n in (i, i + 1))
    if bucket and with_this > replayed:
        places = [place for places in earlier for place in places]
        return places[example_at(seed, replayed, len(places))]
    drawn = i - replayed if bucket else i
    return own[example_at(seed, drawn, len(own))]


def sorted_order(examples: Sequence[Example], by: str, seed: int) -> Callable[[int], int]:
    """From an index to a place: all examples once, the easiest first, then in the usual order."""
    size = len(examples)
    usual = [example_at(seed, index, size) for index in range(size)]
    ranked = sorted(usual, key=lambda place: DIFFICULTY[by](examples[place]))
    return lambda index: ranked[index] if index < size else example_at(seed, index, size)


def after(curriculum: Curriculum, memory: Memory, value: float, taken: int) -> Memory:
    """What is remembered after an iteration with a metric `value`, and `taken` examples in all.

    A metric that is no number, because nothing of the iteration was scored, says nothing.
    """
    if not math.isfinite(value):
        return memory
    values = [*memory["values"], value][-curriculum.window :]
    is_full = len(values) == curriculum.window
    is_last = memory["bucket"] == len(curriculum.buckets) - 1
    if is_last or not is_full or sum(values) / len(values) <= curriculum.threshold:
        return {**memory, "values": values}
    return {"bucket": memory["bucket"] + 1, "since": taken, "values": []}
