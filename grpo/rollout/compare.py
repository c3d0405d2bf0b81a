"""Comparing the completions of a rollout within their groups: step (4) of GRPO."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups, groups_of
from grpo.algorithms.losses import kl_penalty
from grpo.algorithms.rewards_to_advantages import Round
from grpo.rewards.scores import Scores
from grpo.rollout.ahead import Sampled
from grpo.rollout.frozen import Needs, learnt

Compiled = Callable[..., tuple[jax.Array, jax.Array]]  # compiled_advantages


def round_of(needs: Needs, sampled: Sampled, scores: Scores, group: int) -> Round:
    """What the advantages of a batch are made of, on the host."""
    rollout, frozen = sampled.rollout, sampled.frozen

    def by_group(x_B: Any) -> np.ndarray:
        return np.asarray(x_B).reshape(-1, group)

    parts = {f: by_group(part_B) for f, part_B in scores.parts.items()}
    penalty_PG = None
    if needs.penalty:
        mask_BC = rollout.completion_mask_BC
        penalty_B = kl_penalty(frozen.old_BC, frozen.ref_BC, mask_BC, objective=needs.objective)
        penalty_PG = by_group(penalty_B)
    length_PG = by_group(np.asarray(rollout.length_B))
    return Round(by_group(scores.total), parts, length_PG, penalty_PG)


def compared(advantages: Compiled, needs: Needs, sampled: Sampled, scored: Round) -> Groups:
    """The groups of a batch with their advantages, on the host."""
    advantage_PG, spread_P1 = advantages(*scored)
    group = advantage_PG.shape[1]
    groups = groups_of(
        sampled.rollout._asdict(),
        {"advantage_B": advantage_PG.reshape(-1), "spread_B": jnp.repeat(spread_P1, group)},
        learnt(sampled.frozen, needs),
    )
    return groups.each(np.asarray)
