"""The reward for a plan: how much of it can be done, and whether that reaches the goal.

    r = prefix · k / max(n, n_gold)  +  (1 - prefix) · [k = n and the goal holds]        0 to 1

The plan is the answer of a completion in form (`extract.strict`; without the form r = 0), its steps
set apart by commas, semicolons, full stops or line breaks: n of them, of which the first k can be
done, one after the other, in the example's world (`example["strips"]`, grpo/data/strips.py). n_gold
is the number of steps of the gold plan. The option `prefix`, of [0, 1], is the share for a plan
that can be done as far as it goes.

Deviation: the share of the steps would pay the whole `prefix` for a single legal step, so a plan
that is shorter than the gold one is measured by that one's length. Known flaw: legal steps that
lead nowhere still earn up to `prefix`, so let it be small. A detour that ends at the goal is free.
"""

import re
from collections.abc import Mapping

from grpo.data.strips import execute
from grpo.rewards.extract import strict

APART = re.compile(r"[,;.\n]")


def steps_of(plan: str) -> list[str]:
    """The steps of a written plan, with single spaces."""
    return [step for part in APART.split(plan) if (step := " ".join(part.split()))]


def plan(example: Mapping, completion: str, *, prefix: float) -> float:
    """The share of the plan that can be done, and the goal, weighed."""
    if "strips" not in example:
        raise ValueError("the example has no world: plan needs its strips")
    answer = strict(completion)
    steps = steps_of(answer) if answer else []
    if not steps:
        return 0.0
    world = example["strips"]
    done, state = execute(world, steps)
    is_reached = done == len(steps) and state.issuperset(world["goal"])
    share = done / max(len(steps), len(steps_of(example["answer"])))
    return prefix * share + (1 - prefix) * is_reached
