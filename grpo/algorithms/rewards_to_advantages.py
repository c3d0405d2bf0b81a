"""Rewards -> advantages, as an objective says: shaping, then comparison.

r <- r - overlong_penalty(length) - kl_coef · Σ_t KL_t      where the objective has these
A  = advantages(r)   or, decoupled,   z(Σ_f w_f advantages(r_f)) over the f with a weight
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms.advantages import (
    advantages,
    all_equal,
    decoupled_advantages,
    overlong_penalty,
)
from grpo.algorithms.objective import Objective

Array = jax.Array


class Round(NamedTuple):
    """What the advantages of P groups are made of."""

    reward_PG: Any
    parts: Mapping[str, Any]  # by reward function, behind its gate
    length_PG: Any
    penalty_PG: Any  # None: no KL is taken from the reward


def spread(
    reward_PG: Array,
    parts: Mapping[str, Array],
    weights: Mapping[str, float],
    *,
    objective: Objective,
) -> Array:
    """spread_P1: whether a group's rewards differ, before any penalty: penalties always do."""
    heard = [part_PG for name, part_PG in parts.items() if weights[name]]
    compared = heard if objective.decoupled else [reward_PG]
    differ = [~all_equal(r_PG, jnp.isfinite(r_PG), 1) for r_PG in compared]
    return jnp.any(jnp.stack(differ), axis=0)


def rewards_to_advantages(
    reward_PG: Array,
    parts: Mapping[str, Array],
    weights: Mapping[str, float],
    length_PG: Array,
    penalty_PG: Array | None,
    *,
    limit: int,
    objective: Objective,
) -> Array:
    """advantage_PG; `parts` are the reward functions apart, gated; `penalty_PG` is the KL's."""
    how = {"baseline": objective.baseline, "scale": objective.scale, "eps": objective.eps or 0.0}
    if objective.decoupled:
        heard = {name: reward_PG for name, reward_PG in parts.items() if weights[name]}
        return decoupled_advantages(heard, dict(weights), **how)
    if objective.overlong_buffer is not None and objective.overlong_penalty is not None:
        reward_PG = reward_PG - overlong_penalty(
            length_PG,
            limit=limit,
            buffer=objective.overlong_buffer,
            penalty=objective.overlong_penalty,
        )
    if penalty_PG is not None:
        reward_PG = reward_PG - penalty_PG
    return advantages(reward_PG, **how)


def compiled_advantages(
    weights: Mapping[str, float], *, limit: int, objective: Objective
) -> Callable[..., tuple[Array, Array]]:
    """(reward_PG, parts, length_PG, penalty_PG) -> (advantage_PG, spread_P1), as one program."""

    def both(reward_PG: Array, parts: Mapping[str, Array], length_PG: Array, penalty_PG: Any):
        advantage_PG = rewards_to_advantages(
            reward_PG, parts, weights, length_PG, penalty_PG, limit=limit, objective=objective
        )
        return advantage_PG, spread(reward_PG, parts, weights, objective=objective)

    return jax.jit(both)
