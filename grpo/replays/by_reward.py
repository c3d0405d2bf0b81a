"""The gradient of an update that was made again, by reward function: diagnostics/by_reward.py.

Refused where that is not true: of advantages that do not add up (`decoupled`), and where a clip
depends on the advantage's sign.
"""

from collections.abc import Callable
from typing import Any

from grpo.diagnostics.by_reward import Parts, apart_of, is_linear, taken_apart
from grpo.replays.again import Update
from grpo.replays.place import ReplayError

Tree = Any


def by_reward(update: Update, gradient_with: Callable[[Any], Tree]) -> Parts:
    """The gradient of an update taken apart; `gradient_with` gives it for other advantages."""
    stage, objective = update.setting.stage, update.setting.needs.objective
    weights = {name: entry.weight for name, entry in update.setting.table.items()}
    if objective.decoupled:
        raise ReplayError(
            "--by_reward: loss.decoupled=True normalises each reward function apart and all of "
            "them together: their advantages do not add up; it takes apart what is not decoupled"
        )
    how = {"limit": stage["max_new_tokens"], "objective": objective}
    apart = apart_of(update.known.rounds, update.known.row_B, weights, **how)
    if not apart:
        raise ReplayError(f"--by_reward: {update.setting.name} has no reward with a weight")
    parts = taken_apart(gradient_with, update.batch.advantage_B, apart)
    return linear(parts, update.loop.policy.compute_dtype)


def linear(parts: Parts, dtype: Any) -> Parts:
    """The same, unless too much of the gradient is of no part."""
    if not is_linear(parts, dtype):
        raise ReplayError(
            f"--by_reward: the loss is not linear in the advantages here, {parts.residual:.1%} of "
            "the gradient belongs to no reward function alone: clips depend on the advantage's "
            "sign; the first update of an iteration has none, unless it was sampled ahead"
        )
    return parts
