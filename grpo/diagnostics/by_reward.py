"""The gradient of an update taken apart: what each reward function asks for, and what is no reward.

    r    = Σ_f x_f                  x_f = weight_f · gate_f · reward_f; penalties are terms of r too
    A_f  = c (x_f - mean x_f) / (s(r) + eps)                so that Σ_f A_f = A
    g_f  = ∇L(A_f in place of A) - ∇L(0 in place of A)
    g_0  = ∇L(0 in place of A)      KL, entropy, a teacher: what no reward is asked about
    g    = g_0 + Σ_f g_f            where L is linear in A

with the mean, the scale s and the factor c (of leave_one_out) of the objective's baseline and scale
(advantages.py), s being that of the whole reward. A is not linear in r where each function is
normalised apart (`decoupled`): whoever asks refuses that. L is linear in A at ρ = 1, in the first
update of an iteration; later a clip depends on the sign of A, which A_f may not share. What is then
left over,

    residual = ‖g - g_0 - Σ_f g_f‖ / (‖g_0‖ + Σ_f ‖g_f‖)

is measured; beyond LINEAR, and more than short floats round off, the parts are not the gradient's.

    conflict = 1 - ‖Σ_f g_f‖ / Σ_f ‖g_f‖        0: all pull the same way, 1: they cancel
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.advantages import SCALES, advantages, all_equal, overlong_penalty
from grpo.algorithms.objective import Objective
from grpo.algorithms.rewards_to_advantages import Round
from grpo.diagnostics.gradients import ALL, cosine, difference, norm_of, products, total

Tree = Any
LINEAR, ROUNDINGS = 1e-3, 4.0  # residual, by itself and in units of a dtype's last place
REST, OVERLONG, PENALTY = "(no reward)", "(overlong)", "(KL in the reward)"


class Parts(NamedTuple):
    """A gradient taken apart."""

    advantages: Mapping[str, np.ndarray]  # A_f of the batch's rows
    norms: dict[str, float]
    to_whole: dict[str, float]  # cosines to the whole gradient
    cosines: dict[str, dict[str, float]]
    conflict: float
    residual: float


def terms_of(
    one: Round, weights: Mapping[str, float], *, limit: int, objective: Objective
) -> dict[str, np.ndarray]:
    """x_PG of each reward function with a weight, and of the penalties."""
    found = {f: w * np.asarray(one.parts[f], np.float64) for f, w in weights.items() if w}
    if objective.overlong_buffer is not None and objective.overlong_penalty is not None:
        cost_PG = overlong_penalty(
            one.length_PG,
            limit=limit,
            buffer=objective.overlong_buffer,
            penalty=objective.overlong_penalty,
        )
        found[OVERLONG] = -np.asarray(cost_PG)
    if one.penalty_PG is not None:
        found[PENALTY] = -np.asarray(one.penalty_PG)
    return found


def advantages_apart(
    terms: Mapping[str, np.ndarray], *, objective: Objective
) -> dict[str, np.ndarray]:
    """A_PG of each term of a reward, by the formula of this module; they add up to A_PG."""
    reward_PG = jnp.asarray(sum(terms.values()), jnp.float32)
    valid_PG = jnp.isfinite(reward_PG)
    baseline, scale = objective.baseline, objective.scale
    idle = all_equal(reward_PG, valid_PG, None if baseline == "batch" else 1) | ~valid_PG

    def centred(x_PG: Any) -> Any:
        x_PG = jnp.where(valid_PG, jnp.asarray(x_PG, jnp.float32), jnp.nan)
        return advantages(x_PG, baseline=baseline, scale="none", eps=0.0)

    divisor = 1.0
    if scale != "none":
        divisor = SCALES[scale](reward_PG, centred(reward_PG), valid_PG) + (objective.eps or 0.0)
    return {
        name: np.asarray(jnp.where(idle, 0.0, centred(x_PG) / divisor))
        for name, x_PG in terms.items()
    }


def apart_of(
    rounds: Sequence[Round],
    row_B: np.ndarray,
    weights: Mapping[str, float],
    *,
    limit: int,
    objective: Objective,
) -> dict[str, np.ndarray]:
    """A_B of each term at some rows of some rounds, whose rows are numbered on; they add up to A.

    Empty where no reward function has a weight.
    """
    apart = [
        advantages_apart(
            terms_of(one, weights, limit=limit, objective=objective), objective=objective
        )
        for one in rounds
    ]
    return {
        name: np.concatenate([one[name].reshape(-1) for one in apart])[row_B] for name in apart[0]
    }


def is_linear(parts: Parts, dtype: Any) -> bool:
    """Whether a gradient that was computed in this dtype is the sum of its parts."""
    return not parts.residual > max(LINEAR, ROUNDINGS * float(jnp.finfo(dtype).eps))


def taken_apart(
    gradient_with: Callable[[Any], Tree], advantage_B: Any, apart: Mapping[str, np.ndarray]
) -> Parts:
    """A gradient by the terms of its advantages; `gradient_with` gives it for other advantages."""
    whole = gradient_with(advantage_B)
    rest = gradient_with(np.zeros_like(advantage_B))
    parts = {name: difference(gradient_with(A_B), rest) for name, A_B in apart.items()}
    return Parts(apart, *compared(whole, rest, parts))


def compared(whole: Tree, rest: Tree, parts: Mapping[str, Tree]) -> tuple:
    """The other fields of Parts."""
    together = {**parts, REST: rest}
    lengths = {name: norm_of(tree) for name, tree in together.items()}
    left_over = norm_of(difference(whole, total(together))) / max(sum(lengths.values()), 1e-30)
    squares = {name: length**2 for name, length in lengths.items()}
    own = norm_of(whole) ** 2
    to_whole = {
        name: cosine(products(tree, whole)[ALL], squares[name], own)
        for name, tree in together.items()
    }
    cosines = {
        left: {
            right: cosine(products(tree, other)[ALL], squares[left], squares[right])
            for right, other in together.items()
        }
        for left, tree in together.items()
    }
    pulls = sum(lengths[name] for name in parts)
    conflict = 1 - norm_of(total(parts)) / pulls if pulls else 0.0
    return lengths, to_whole, cosines, conflict, left_over
