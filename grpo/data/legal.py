"""A world made here: a rule, facts of a few people, and whether one of them may do something.

    [1] Ben is 12. [2] Ann is 20. Rule: ride at 18 or more. May Ann ride?
    [2] "Ann is 20." 20>=18                      yes

Half of the answers are yes. The reasoning cites the facts that decide, by number and word by word,
and compares; `context` is what may be cited: everything before the question. Level 1 has two facts,
level 2 has three, level 3 a rule with two conditions, of which all must hold: its reasoning cites
by number alone. A problem's key is what is compared, and not who, what for or what else there is.
"""

import operator

import numpy as np

from grpo.data.making import Drawn, below, one_of, several_of

LEVELS = {
    1: {"facts": 2, "conditions": 1},
    2: {"facts": 3, "conditions": 1},
    3: {"facts": 3, "conditions": 2},
}
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Gus", "Ivy", "Leo", "Max", "Zoe")
VERBS = ("ride", "enter", "play", "board", "drive")
# What a person has of a kind, the rule for it, what holds and what does not, and the limits.
KINDS = {
    "age": {"fact": "{name} is {n}.", "rule": "at {n} or more", "holds": ">=", "fails": "<",
            "limits": (12, 30)},
    "bags": {"fact": "{name} has {n} bags.", "rule": "with {n} bags or less", "holds": "<=",
             "fails": ">", "limits": (3, 12)},
    "points": {"fact": "{name} has {n} points.", "rule": "with {n} points or more", "holds": ">=",
               "fails": "<", "limits": (12, 30)},
}  # fmt: skip
COMPARE = {">=": operator.ge, "<": operator.lt, "<=": operator.le, ">": operator.gt}
FARTHEST = 9  # of a number from the limit


def draw_number(random: np.random.RandomState, limit: int, sign: str) -> int:
    """A number of which "number sign limit" is true; 1 or more."""
    near = range(max(1, limit - FARTHEST), limit + FARTHEST + 1)
    return one_of(random, [n for n in near if COMPARE[sign](n, limit)])


def draw_conditions(
    random: np.random.RandomState, count: int, is_allowed: bool
) -> list[tuple[str, int, int, str]]:
    """(kind, number, limit, sign) of conditions that all hold, or of which one at least fails."""
    kinds = several_of(random, list(KINDS), count)
    # A number whose bits say which hold; all of them are 1 only where it is allowed.
    holding = 2**count - 1 if is_allowed else below(random, 2**count - 1)
    conditions = []
    for place, kind in enumerate(kinds):
        low, high = KINDS[kind]["limits"]
        limit = low + below(random, high - low + 1)
        sign = KINDS[kind]["holds" if holding >> place & 1 else "fails"]
        conditions.append((kind, draw_number(random, limit, sign), limit, sign))
    return conditions


def draw_others(
    random: np.random.RandomState, conditions: list[tuple[str, int, int, str]], count: int
) -> list[tuple[str, int]]:
    """(kind, number) of what is said of other people, as near to the limits."""
    others = []
    for _ in range(count):
        kind, _, limit, _ = one_of(random, conditions)
        sign = one_of(random, (KINDS[kind]["holds"], KINDS[kind]["fails"]))
        others.append((kind, draw_number(random, limit, sign)))
    return others


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A problem of a level, in words."""
    rules, is_allowed = LEVELS[level], below(random, 2) == 1
    conditions = draw_conditions(random, rules["conditions"], is_allowed)
    others = draw_others(random, conditions, rules["facts"] - len(conditions))
    name, *more = several_of(random, NAMES, 1 + len(others))
    decide = [KINDS[kind]["fact"].format(name=name, n=n) for kind, n, _, _ in conditions]
    beside = [
        KINDS[kind]["fact"].format(name=other, n=n)
        for other, (kind, n) in zip(more, others, strict=True)
    ]
    facts = several_of(random, [*decide, *beside], rules["facts"])
    verb = one_of(random, VERBS)
    rule = ", ".join(KINDS[kind]["rule"].format(n=limit) for kind, _, limit, _ in conditions)
    numbered = [f"[{place}] {fact}" for place, fact in enumerate(facts, start=1)]
    context = f"{' '.join(numbered)} Rule: {verb} {rule}."
    compared = [f"{n}{sign}{limit}" for _, n, limit, sign in conditions]
    cited = [f"[{facts.index(fact) + 1}]" for fact in decide]
    if len(decide) == 1:
        cited = [f'{cited[0]} "{decide[0]}"']
    return Drawn(
        key=" ".join(sorted(f"{kind} {n} {limit}" for kind, n, limit, _ in conditions)),
        question=f"{context} May {name} {verb}?",
        answer="yes" if is_allowed else "no",
        reasoning="; ".join(f"{c} {e}" for c, e in zip(cited, compared, strict=True)),
        checkpoints=compared,
        more={"context": context},
    )
