"""The order of a GRPO stage's examples, and how far its curriculum has come.

What there is of curricula: grpo/data/curriculum.py. What one remembers stands in the stage's
cursor, and so in its checkpoints.
"""

import functools
from collections.abc import Callable, Mapping

from grpo.data.curriculum import START, Curriculum, after, promoted_at, sorted_order
from grpo.rewards.table import Entry, total_range
from grpo.runs.run import Run
from grpo.runs.stage_loop import StageLoop

Order = Callable[[int], int]  # from an index to the place of an example


def fixed_order(run: Run, name: str) -> Order:
    """The order of a stage's examples, if no curriculum promotes."""
    data, section = run.data_of(name), run.config["stages"][name]["curriculum"]
    if section["order"] == "sorted":
        return sorted_order(data.train, section["by"], run.seed)
    return data.order(data.train, run.seed)


def order_so_far(order: Order, curriculum: Curriculum | None, loop: StageLoop) -> Order:
    """The order of the examples as far as a curriculum has come, or without one `order`."""
    if curriculum is None:
        return order
    memory = loop.cursor.setdefault("curriculum", START)
    return functools.partial(promoted_at, curriculum, memory, loop.run.seed)


def promote(
    curriculum: Curriculum | None,
    table: Mapping[str, Entry],
    loop: StageLoop,
    metrics: Mapping[str, float],
) -> dict[str, float]:
    """Moves a curriculum on where the iteration allows it; the bucket that it was drawn from."""
    if curriculum is None:
        return {}
    value = metrics["right"]
    if loop.config["curriculum"]["metric"] == "reward":
        low, high = total_range(table)
        value = (metrics["reward/mean"] - low) / (high - low)
    before = loop.cursor["curriculum"]
    loop.cursor["curriculum"] = now = after(curriculum, before, value, loop.taken)
    if now["bucket"] > before["bucket"]:
        loop.run.progress.say(
            f"{loop.stage} {loop.iteration + 1}/{loop.total}: bucket {now['bucket'] + 1} of "
            f"{len(curriculum.buckets)} from here on, {len(curriculum.buckets[now['bucket']])} "
            "harder examples"
        )
    return {"curriculum/level": before["bucket"] + 1.0}
