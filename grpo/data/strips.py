"""Planning in STRIPS (Fikes and Nilsson, 1971): facts, and actions that need, add and delete some.

    s' = (s - deletes) ∪ adds                    of an action with needs ⊆ s

A world is plain JSON, as an example carries it:

    facts     those that hold at first           goal    those that are to hold at the end
    actions   a list of {"step": "A to B", "needs": [...], "adds": [...], "deletes": [...]}

Several actions may be called the same step: "A to B" takes A from wherever it is. A step is that
one of them whose needs hold. Everything is linear in the steps of a plan.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

World = Mapping[str, Any]
State = frozenset[str]


class Action(NamedTuple):
    """An action of a world."""

    step: str
    needs: State
    adds: State
    deletes: State


def actions_of(world: World) -> list[Action]:
    """The actions of a world."""
    return [
        Action(row["step"], *(frozenset(row[part]) for part in ("needs", "adds", "deletes")))
        for row in world["actions"]
    ]


def result(state: State, action: Action) -> State:
    """The facts after an action."""
    return (state - action.deletes) | action.adds


def execute(world: World, plan: Iterable[str]) -> tuple[int, State]:
    """How many steps of a plan can be done, up to the first that cannot, and what then holds."""
    by_step: dict[str, list[Action]] = {}
    for action in actions_of(world):
        by_step.setdefault(action.step, []).append(action)
    state, done = frozenset(world["facts"]), 0
    for step in plan:
        possible = [action for action in by_step.get(step, ()) if action.needs <= state]
        if not possible:
            break
        state, done = result(state, possible[0]), done + 1
    return done, state


def shortest_plans(facts: State, actions: Sequence[Action]) -> dict[State, tuple[str, ...]]:
    """By state, of every state that can be reached: a shortest plan, the first in alphabet."""
    ordered = sorted(actions, key=lambda action: action.step)
    plans: dict[State, tuple[str, ...]] = {facts: ()}
    latest = [facts]
    while latest:
        following = []
        for state in latest:  # in the order of their plans, which is that of the alphabet
            for action in ordered:
                if action.needs <= state and (then := result(state, action)) not in plans:
                    plans[then] = (*plans[state], action.step)
                    following.append(then)
        latest = following
    return plans
