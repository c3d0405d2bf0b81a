"""A world made here: word problems small enough for a model of a million parameters.

    Ann has 3 apples and gets 4 more. How many now?      3+4=7      7

A problem is a number of things and steps that add, take away or multiply; wording is drawn apart
from it. Quantities stay above 0. Whether a problem is for training or for testing is decided by a
hash of its numbers and operations alone: no wording of a test problem is trained on, nor the same
sum with its terms exchanged. Validation problems, where there are any, are a part of those for
training, which is then without them: what is tested stays the same.
"""

import hashlib
import operator
from collections.abc import Sequence

import numpy as np

from grpo.data.examples import DataError, Example

TEST_SHARE = 0.2  # part of the world: another share is another world
VALIDATION_SHARE = 0.1  # of the world
PARTS = ("train", "validation", "test")
LEVELS = {
    1: {"steps": 1, "operations": "+-", "largest": 20},
    2: {"steps": 3, "operations": "+-", "largest": 6},
    3: {"steps": 2, "operations": "+-*", "largest": 50},
    4: {"steps": 3, "operations": "+-*", "largest": 100},
    5: {"steps": 4, "operations": "+-*", "largest": 100},
}
LARGEST_FACTOR, LARGEST_MULTIPLIED = 9, 100
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul}

# Short words, and few: a tokenizer of 512 pieces is to have a piece for each.
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Gus", "Ivy", "Leo", "Max", "Zoe")
THINGS = ("apples", "books", "cards", "coins", "eggs", "nuts", "pens", "plums", "shells", "stones")
OPENERS = ("{name} has {n} {things}", "{name} buys {n} {things}", "{name} finds {n} {things}")
JOINS = (" and ", ", then ")
STEPS = {
    "+": ("gets {n} more", "buys {n} more", "finds {n} more", "adds {n}"),
    "-": ("loses {n}", "sells {n}", "uses {n}", "gives {n} away"),
    "*": ("gets to {n} times as many", "ends with {n} times as many"),
}
ASKS = ("How many now?", "How many are there?", "How many {things}?", "Count the {things}.")

Problem = tuple[int, list[tuple[str, int]]]  # a number, and the operations on it


def split(problem_key: str, test_share: float, validation_share: float = 0.0) -> str:
    """The part that a problem is for: "train", "validation" or "test"."""
    # Python's own hash of a text is another one in every process.
    digest = hashlib.sha256(problem_key.encode()).digest()
    place = int.from_bytes(digest[:8], "big")
    if place < test_share * 2**64:
        return "test"
    return "validation" if place < (test_share + validation_share) * 2**64 else "train"


def key_of(problem: Problem) -> str:
    """A problem's numbers and operations, "3+4-2"; "4+3-2" is the same one."""
    number, steps = problem
    (operation, first), *rest = steps
    if operation in "+*":
        number, first = sorted((number, first))
    return str(number) + "".join(f"{sign}{n}" for sign, n in [(operation, first), *rest])


def equations_of(problem: Problem) -> list[str]:
    """A line of working per step: "3+4=7"."""
    value, lines = problem[0], []
    for operation, n in problem[1]:
        lines.append(f"{value}{operation}{n}={APPLY[operation](value, n)}")
        value = APPLY[operation](value, n)
    return lines


def below(random: np.random.RandomState, n: int) -> int:
    """A number from 0 to n - 1."""
    return int(random.random_sample() * n)  # randint, drawing one at a time, takes 8 times as long


def draw_problem(random: np.random.RandomState, level: int) -> Problem:
    """A problem of a level."""
    rules = LEVELS[level]
    number = value = 2 + below(random, rules["largest"] - 1)
    steps = []
    for _ in range(rules["steps"]):
        most = {"+": rules["largest"], "-": min(rules["largest"], value - 1), "*": LARGEST_FACTOR}
        possible = [
            sign
            for sign in rules["operations"]
            if most[sign] >= 2 and (sign != "*" or value <= LARGEST_MULTIPLIED)
        ]
        operation = possible[below(random, len(possible))]
        steps.append((operation, 2 + below(random, most[operation] - 1)))
        value = APPLY[operation](value, steps[-1][1])
    return number, steps


def draw_wording(random: np.random.RandomState, problem: Problem) -> str:
    """A problem in words."""

    def one_of(texts: Sequence[str]) -> str:
        return texts[below(random, len(texts))]

    name, things, number = one_of(NAMES), one_of(THINGS), problem[0]
    text = one_of(OPENERS).format(name=name, n=number, things=things)
    for operation, n in problem[1]:
        text += one_of(JOINS) + one_of(STEPS[operation]).format(n=n)
    return f"{text}. {one_of(ASKS).format(things=things)}"


def make_examples(
    seed: int,
    count: int,
    levels: Sequence[int],
    part: str,
    worked: float,
    validation_share: float = 0.0,
) -> list[Example]:
    """The first `count` different examples of a part, such as "train", of some levels.

    A share `worked` of the solutions shows its working; the others state the result. Which do is
    drawn apart from the problems.
    """
    if unknown := set(levels) - set(LEVELS):
        raise DataError(f"level {min(unknown)}: there are {min(LEVELS)} to {max(LEVELS)}")
    if not levels or part not in PARTS:
        raise DataError(
            f"levels={levels}, part={part!r}: needs a level, and one of {', '.join(PARTS)}"
        )
    # RandomState, unlike Python's random, promises the same numbers in every version (NEP 19).
    random, examples, questions = np.random.RandomState(seed), [], set()
    shows_working = np.random.RandomState([seed, 1]).random_sample(count) < worked
    for _ in range(1000 + 100 * count):
        if len(examples) == count:
            return examples
        level = levels[below(random, len(levels))]
        problem = draw_problem(random, level)
        question, equations = draw_wording(random, problem), equations_of(problem)
        of_part = split(key_of(problem), TEST_SHARE, validation_share) == part
        if not of_part or question in questions:
            continue
        questions.add(question)
        answer = equations[-1].split("=")[1]
        examples.append(
            {
                "id": f"arithmetic-{seed}-{part}-{len(examples)}",
                "question": question,
                "answer": answer,
                "reasoning": "; ".join(equations)
                if shows_working[len(examples)]
                else f"so {answer}",
                "checkpoints": equations,
                "level": level,
                "problem": key_of(problem),
            }
        )
    raise DataError(
        f"levels={levels}: there are no {count} different examples for {part!r}: ask for fewer"
    )
