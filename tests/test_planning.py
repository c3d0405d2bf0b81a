"""Blocks: gold plans against a simulator of lists and a search of its own."""

import functools
import itertools
import re

import numpy as np
import pytest

from grpo.data.making import make
from grpo.data.planning import (
    LEVELS,
    moves,
    plans_between,
    problems,
    rows_of,
    stacked,
    states_of,
    towers,
)
from grpo.data.strips import execute
from grpo.data.worlds import WORLDS


@functools.cache
def world(level):
    return make("planning", WORLDS["planning"], 0, 150, [level], "train", 1.0, 0.0)


def piles_of(text):
    """ "A on B. B on table." as towers from the bottom up, in a set."""
    on = dict(re.findall(r"(\w) on (\w+)", text))
    piles = {block: [block] for block, place in on.items() if place == "table"}
    while len(placed := [b for pile in piles.values() for b in pile]) < len(on):
        for block, place in on.items():
            for pile in piles.values():
                if block not in placed and pile[-1] == place:
                    pile.append(block)
    return frozenset(map(tuple, piles.values()))


def neighbours(piles):
    """Every move: the name of it, and the towers after it."""
    for pile in piles:
        rest = piles - {pile}
        top, below = pile[-1], pile[:-1]
        left = {below} if below else set()
        if below:
            yield f"{top} to table", rest | left | {(top,)}
        for other in rest:
            yield f"{top} to {other[-1]}", (rest - {other}) | left | {(*other, top)}


def distance(start, goal):
    """The number of moves, searched for from the start."""
    seen, latest = {start}, [start]
    for steps in itertools.count():
        if goal in latest:
            return steps
        following = {then for piles in latest for _, then in neighbours(piles)} - seen
        seen |= following
        latest = [*following]


def test_these_never_change():
    first = world(2)[0]
    assert {key: first[key] for key in ("question", "answer", "reasoning")} == {
        "question": "D on C. C on table. E on table. Build: E on D. C on table. D on table.",
        "answer": "D to table, E to D",
        "reasoning": "C D E; C E/D",
    }
    assert first["strips"]["facts"] == [
        "C on table", "D clear", "D on C", "E clear", "E on table",
    ]  # fmt: skip
    assert first["strips"]["goal"] == ["C on table", "D on table", "E on D"]
    assert first["problem"] == "C on table.D on C.E on table>C on table.D on table.E on D"
    assert first["checkpoints"] == ["C D E", "C E/D"]


@pytest.mark.parametrize("level", LEVELS)
def test_gold_plans_are_right_and_shortest(level):
    for example in world(level):
        given, wanted = re.split(r"\w+: ", example["question"])
        piles, goal = piles_of(given), piles_of(wanted)
        steps = example["answer"].split(", ")
        assert distance(piles, goal) == len(steps) == LEVELS[level]["steps"] == level - (level > 3)
        for step, shown in zip(steps, example["reasoning"].split("; "), strict=True):
            piles = dict(neighbours(piles))[step]
            assert {tuple(reversed(t.split("/"))) for t in shown.split(" ")} == piles
        assert piles == goal and given.count(".") == (4 if level > 3 else 3)
        done, state = execute(example["strips"], steps)
        assert done == len(steps) and state.issuperset(example["strips"]["goal"])


def test_every_plan_agrees_with_the_simulator_of_lists():
    """Random steps, possible or not, on random problems."""
    random = np.random.RandomState(0)
    stopped = 0
    for example in world(5):
        names = [f"{a} to {b}" for a in "ABCDEF" for b in [*"ABCDEF", "table"]]
        given = example["question"].split(":")[0]
        piles, plan = piles_of(given), []
        for _ in range(4):
            possible = sorted(dict(neighbours(piles)))
            is_wild = random.random_sample() < 0.15
            plan.append(names[random.randint(len(names))] if is_wild else possible[0])
            piles = dict(neighbours(piles)).get(plan[-1], piles)
        piles, done = piles_of(given), 0
        for step in plan:
            if step not in dict(neighbours(piles)):
                break
            piles, done = dict(neighbours(piles))[step], done + 1
        got, state = execute(example["strips"], plan)
        assert got == done and piles_of(". ".join(stacked(state))) == piles
        stopped += done < 4
    assert 30 < stopped < 120


def test_there_are_as_many_states_as_there_should_be():
    """Sets of ordered towers of n blocks: 1, 3, 13, 73 (Lah numbers summed)."""
    assert [len(plans_between("ABC"[:n])) for n in (1, 2, 3)] == [1, 3, 13]
    assert len(plans_between("ABCD")) == 73
    assert len(moves("ABC")) == 3 * 3 * 2 and len(moves("ABCD")) == 4 * 4 * 3
    for state in plans_between("ABC"):
        clear = {f.split()[0] for f in state if f.endswith("clear")}
        assert clear == {pile[-1] for pile in piles_of(". ".join(stacked(state)))}


def test_the_first_of_the_shortest_plans_by_alphabet():
    start = next(s for s in plans_between("ABC") if towers(s) == "A/B/C")
    for goal, plan in plans_between("ABC")[start].items():
        every = [
            steps
            for steps in itertools.product(sorted({m.step for m in moves("ABC")}), repeat=len(plan))
            if execute(world_of(start), steps) == (len(plan), goal)
        ]
        assert plan == min(every)
    assert problems("ABC", 9) == []


def world_of(facts):
    return {"facts": sorted(facts), "goal": [], "actions": rows_of("ABC")}


def test_states_of_a_plan():
    start = next(s for s in plans_between("ABC") if towers(s) == "A/B C")
    assert states_of("ABC", start, ("A to C", "B to A")) == ["B A/C", "B/A/C"]
