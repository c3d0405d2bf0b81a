"""A world made here: word problems small enough for a model of a million parameters.

    Ann has 3 apples and gets 4 more. How many now?      3+4=7      7

A problem is a number of things and steps that add, take away or multiply; wording is drawn apart
from it. Quantities stay above 0. Its key is its numbers and operations: neither a wording of a test
problem is trained on (making.py), nor the same sum with its terms exchanged.
"""

import operator

import numpy as np

from grpo.data.making import Drawn, below, one_of

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
    name, things = one_of(random, NAMES), one_of(random, THINGS)
    text = one_of(random, OPENERS).format(name=name, n=problem[0], things=things)
    for operation, n in problem[1]:
        text += one_of(random, JOINS) + one_of(random, STEPS[operation]).format(n=n)
    return f"{text}. {one_of(random, ASKS).format(things=things)}"


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A problem of a level, in words."""
    problem = draw_problem(random, level)
    question, equations = draw_wording(random, problem), equations_of(problem)
    answer = equations[-1].split("=")[1]
    return Drawn(key_of(problem), question, answer, "; ".join(equations), equations, {})
