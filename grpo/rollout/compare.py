"""Comparing the completions of a rollout within their groups: step (4) of GRPO."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from grpo.algorithms.losses import kl_penalty
from grpo.rewards.scores import Scores
from grpo.rollout.frozen import Frozen, Needs
from grpo.rollout.sampler import Rollout

Compiled = Callable[..., tuple[jax.Array, jax.Array]]  # compiled_advantages


def compared(
    advantages: Compiled, needs: Needs, rollout: Rollout, scores: Scores, frozen: Frozen, group: int
) -> tuple[jax.Array, jax.Array]:
    """advantage_PG, and spread_P1: whether the rewards of a group differ."""

    def by_group(x_B: Any) -> np.ndarray:
        return np.asarray(x_B).reshape(-1, group)

    parts = {f: by_group(part_B) for f, part_B in scores.parts.items()}
    penalty_PG = None
    if needs.penalty:
        mask_BC = rollout.completion_mask_BC
        penalty_B = kl_penalty(frozen.old_BC, frozen.ref_BC, mask_BC, objective=needs.objective)
        penalty_PG = by_group(penalty_B)
    length_PG = by_group(np.asarray(rollout.length_B))
    return advantages(by_group(scores.total), parts, length_PG, penalty_PG)
