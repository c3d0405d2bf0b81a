"""A world made here: blocks, one on another, that are to be moved (STRIPS: strips.py).

    A on B. B on table. C on table. Goal: C on A. A on B. B on table.
    C/A/B                                        C to A

One action moves a block with nothing on it onto another such block, or onto the table. Levels 1 to
3 are three blocks whose shortest plan has 1 to 3 steps, 4 and 5 are four blocks with 3 and 4. The
plan is found by breadth-first search; of several the first in alphabet. The reasoning is the towers
after each step, "C/A/B" being C on A on B. A problem's key is what is on what before and after; the
order of the sentences is wording.

Any plan that reaches the goal is right, though it is not the gold one: compare by the reward `plan`
(grpo/rewards/plan.py), not by the text.
"""

import functools

import numpy as np

from grpo.data.making import Drawn, below, one_of, several_of
from grpo.data.strips import Action, State, result, shortest_plans

LEVELS = {
    1: {"blocks": 3, "steps": 1},
    2: {"blocks": 3, "steps": 2},
    3: {"blocks": 3, "steps": 3},
    4: {"blocks": 4, "steps": 3},
    5: {"blocks": 4, "steps": 4},
}
BLOCKS, TABLE = "ABCDEF", "table"
GOALS = ("Goal", "Make", "Build", "Wanted")
SEPARATOR = ", "  # of the steps of a plan


@functools.cache
def moves(blocks: str) -> tuple[Action, ...]:
    """Every action on some blocks."""
    found = []
    for block in blocks:
        places = [*blocks.replace(block, ""), TABLE]
        for origin in places:
            for place in places:
                if place == origin:
                    continue
                here, there = f"{block} on {origin}", f"{block} on {place}"
                needs, adds, deletes = {here, f"{block} clear"}, {there}, {here}
                if origin != TABLE:
                    adds.add(f"{origin} clear")
                if place != TABLE:
                    needs.add(f"{place} clear")
                    deletes.add(f"{place} clear")
                parts = (frozenset(part) for part in (needs, adds, deletes))
                found.append(Action(f"{block} to {place}", *parts))
    return tuple(found)


@functools.cache
def rows_of(blocks: str) -> list[dict[str, object]]:
    """The actions as JSON; examples with the same blocks share them."""
    return [
        {
            "step": move.step,
            **{part: sorted(getattr(move, part)) for part in ("needs", "adds", "deletes")},
        }
        for move in moves(blocks)
    ]


@functools.cache
def plans_between(blocks: str) -> dict[State, dict[State, tuple[str, ...]]]:
    """A shortest plan from every state of some blocks to every other one."""
    apart = frozenset(
        fact for block in blocks for fact in (f"{block} on {TABLE}", f"{block} clear")
    )
    states = shortest_plans(apart, moves(blocks))
    return {state: shortest_plans(state, moves(blocks)) for state in states}


@functools.cache
def problems(blocks: str, steps: int) -> list[tuple[State, State]]:
    """The states before and after, of all shortest plans of so many steps."""
    return [
        (before, goal)
        for before, plans in plans_between(blocks).items()
        for goal, plan in plans.items()
        if len(plan) == steps
    ]


def stacked(state: State) -> list[str]:
    """What is on what: "A on B", in the order of the alphabet."""
    return sorted(fact for fact in state if " on " in fact)


def towers(state: State) -> str:
    """The blocks as they stand: "C/A B" is C on A, and B beside them."""
    over = {below: block for block, below in (fact.split(" on ") for fact in stacked(state))}
    found = []
    for block in sorted(fact.split()[0] for fact in stacked(state) if fact.endswith(TABLE)):
        tower = [block]
        while tower[0] in over:
            tower.insert(0, over[tower[0]])
        found.append("/".join(tower))
    return " ".join(found)


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A problem of a level, in words."""
    rules = LEVELS[level]
    blocks = "".join(sorted(several_of(random, BLOCKS, rules["blocks"])))
    possible = problems(blocks, rules["steps"])
    before, goal = possible[below(random, len(possible))]
    plan = plans_between(blocks)[before][goal]
    given = ". ".join(several_of(random, stacked(before), len(blocks)))
    wanted = ". ".join(several_of(random, stacked(goal), len(blocks)))
    return Drawn(
        key=f"{'.'.join(stacked(before))}>{'.'.join(stacked(goal))}",
        question=f"{given}. {one_of(random, GOALS)}: {wanted}.",
        answer=SEPARATOR.join(plan),
        reasoning="; ".join(passed := states_of(blocks, before, plan)),
        checkpoints=passed,
        more={
            "strips": {
                "facts": sorted(before),
                "goal": stacked(goal),
                "actions": rows_of(blocks),
            }
        },
    )


def states_of(blocks: str, state: State, plan: tuple[str, ...]) -> list[str]:
    """The towers after each step of a plan."""
    passed = []
    for step in plan:
        (move,) = (m for m in moves(blocks) if m.step == step and m.needs <= state)
        state = result(state, move)
        passed.append(towers(state))
    return passed
