"""What the worlds made here have in common: examples that are drawn, each for one part alone.

A world has levels, and draws a problem of a level: its key, which is what is to be solved without
the wording, and the example that asks it. A hash of the key alone decides whether a problem is for
training or for testing: no wording of a test problem is trained on. Validation problems, where
there are any, are a part of those for training, which is then without them: what is tested stays
the same.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.examples import DataError, Example

TEST_SHARE = 0.2  # part of a world: another share is another world
VALIDATION_SHARE = 0.1  # of the world
PARTS = ("train", "validation", "test")
LOOK_EVERY = 256  # problems between two looks at whether to stop


def at_once() -> None:
    """A look at whether to stop, of those who never do."""


class Drawn(NamedTuple):
    """A problem of a world."""

    key: str
    question: str
    answer: str
    reasoning: str
    checkpoints: list[str]
    more: dict[str, Any]  # further keys of the example


class World(NamedTuple):
    """Its levels, the easiest first, and what draws a problem of one."""

    levels: Collection[int]
    draw: Callable[[np.random.RandomState, int], Drawn]


def split(problem_key: str, test_share: float, validation_share: float = 0.0) -> str:
    """The part that a problem is for: "train", "validation" or "test"."""
    # Python's own hash of a text is another one in every process.
    digest = hashlib.sha256(problem_key.encode()).digest()
    place = int.from_bytes(digest[:8], "big")
    if place < test_share * 2**64:
        return "test"
    return "validation" if place < (test_share + validation_share) * 2**64 else "train"


def below(random: np.random.RandomState, n: int) -> int:
    """A number from 0 to n - 1."""
    return int(random.random_sample() * n)  # randint, drawing one at a time, takes 8 times as long


def one_of(random: np.random.RandomState, choices: Sequence[Any]) -> Any:
    """One of some choices."""
    return choices[below(random, len(choices))]


def several_of(random: np.random.RandomState, choices: Sequence[Any], count: int) -> list[Any]:
    """So many different ones of some choices, in any order."""
    left = list(choices)
    return [left.pop(below(random, len(left))) for _ in range(count)]


def make(
    name: str,
    world: World,
    seed: int,
    count: int,
    levels: Sequence[int],
    part: str,
    worked: float,
    validation_share: float,
    check: Callable[[], None] = at_once,
) -> list[Example]:
    """The first `count` different examples of a part, such as "train", of some levels.

    A share `worked` of the solutions shows its working; the others state the result. Which do is
    drawn apart from the problems.
    """
    if unknown := set(levels) - set(world.levels):
        raise DataError(
            f"level {min(unknown)}: there are {min(world.levels)} to {max(world.levels)}"
        )
    if not levels or part not in PARTS:
        raise DataError(
            f"levels={levels}, part={part!r}: needs a level, and one of {', '.join(PARTS)}"
        )
    # RandomState, unlike Python's random, promises the same numbers in every version (NEP 19).
    random, examples, questions = np.random.RandomState(seed), [], set()
    shows_working = np.random.RandomState([seed, 1]).random_sample(count) < worked
    for drawing in range(1000 + 100 * count):
        if len(examples) == count:
            return examples
        if drawing % LOOK_EVERY == 0:
            check()
        level = levels[below(random, len(levels))]
        drawn = world.draw(random, level)
        of_part = split(drawn.key, TEST_SHARE, validation_share) == part
        if not of_part or drawn.question in questions:
            continue
        questions.add(drawn.question)
        shown = shows_working[len(examples)]
        examples.append(
            {
                "id": f"{name}-{seed}-{part}-{len(examples)}",
                "question": drawn.question,
                "answer": drawn.answer,
                "reasoning": drawn.reasoning if shown else f"so {drawn.answer}",
                "checkpoints": drawn.checkpoints,
                "level": level,
                "problem": drawn.key,
                **drawn.more,
            }
        )
    raise DataError(
        f"levels={levels}: there are no {count} different examples for {part!r}: ask for fewer"
    )
