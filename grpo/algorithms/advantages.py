"""Rewards of P groups of G completions -> advantages, relative to a baseline.

    A = (r - baseline) / (scale + eps)

    baseline   group          mean of the completion's group       GRPO, arXiv:2402.03300
               leave_one_out  mean of the others in the group      RLOO, arXiv:2402.14740
               batch          mean of all P·G completions          REINFORCE++, arXiv:2501.03262
    scale      group          the group's standard deviation       GRPO
               batch          that of all rewards                  REINFORCE++
               advantages     that of r - baseline, over the       REINFORCE++-baseline, same paper
                              batch
               mean           the group's mean                     MaxRL, arXiv:2602.02710
               none           1 (and no eps)                       Dr. GRPO, arXiv:2503.20783

Standard deviations are those of a sample (ddof = 1), in two passes. A reward that is not finite
abstains: it counts in no mean and no deviation, and its advantage is 0. Rewards of a group (for
the batch baseline: of the batch) that are equal up to rounding give exactly 0, as does a completion
without a second one to be compared with.

MaxRL is made for rewards of 0 and 1, where its A weights ∇ log π to the gradient of log (chance to
be right), up to order G; the formula is applied to any rewards from 0 on. A group whose mean is 0
or less has advantage 0 throughout: divided by a negative mean, the worse completions would become
the likelier ones. (A config with rewards below 0 is refused: grpo/checks/problems.py.)

Deviations from the papers: GRPO does not say which deviation, and has no eps; these are Tunix's.
REINFORCE++-baseline's deviation is over completions; in its authors' code over tokens, so that
long completions count for more, and after a subtraction of the mean, which is 0 over completions
that are compared with their group's mean.
"""

import jax
import jax.numpy as jnp

from grpo.algorithms.masked import inside

Array = jax.Array
EQUAL = 1e-6  # rewards closer than this, relative to the largest, are equal
BASELINES = ("group", "leave_one_out", "batch")
OVER_BATCH = ("batch", "advantages")  # scales that look beyond a completion's group


def mean_and_std(reward_PG: Array, valid_PG: Array, axis: int | None) -> tuple[Array, Array]:
    """Mean and sample deviation of the valid rewards along an axis (None: all), axes kept."""
    count = jnp.sum(valid_PG, axis, keepdims=True)
    mean = jnp.sum(inside(reward_PG, valid_PG), axis, keepdims=True) / jnp.maximum(count, 1)
    square_PG = jnp.square(inside(reward_PG, valid_PG) - mean) * valid_PG
    return mean, jnp.sqrt(jnp.sum(square_PG, axis, keepdims=True) / jnp.maximum(count - 1, 1))


def all_equal(reward_PG: Array, valid_PG: Array, axis: int | None) -> Array:
    """Whether the valid rewards along an axis are equal up to rounding, or at most one."""
    top = jnp.max(jnp.where(valid_PG, reward_PG, -jnp.inf), axis, keepdims=True)
    low = jnp.min(jnp.where(valid_PG, reward_PG, jnp.inf), axis, keepdims=True)
    return ~(top - low > EQUAL * jnp.maximum(jnp.abs(top), jnp.abs(low)))


def advantages(reward_PG: Array, *, baseline: str, scale: str, eps: float) -> Array:
    """advantage_PG, by the formula of this module."""
    valid_PG = jnp.isfinite(reward_PG)
    axis = None if baseline == "batch" else 1
    mean, _ = mean_and_std(reward_PG, valid_PG, axis)
    advantage_PG = inside(reward_PG, valid_PG) - mean
    if baseline == "leave_one_out":  # r - (Σ r - r) / (n - 1) = n / (n - 1) · (r - mean)
        count_P1 = jnp.sum(valid_PG, axis=1, keepdims=True)
        advantage_PG = advantage_PG * count_P1 / jnp.maximum(count_P1 - 1, 1)
    if scale != "none":
        advantage_PG = advantage_PG / (SCALES[scale](reward_PG, advantage_PG, valid_PG) + eps)
    idle = all_equal(reward_PG, valid_PG, axis) | ~valid_PG
    return jnp.where(idle, 0.0, advantage_PG)


def _positive_mean(reward_PG: Array, valid_PG: Array) -> Array:
    """mean_P1 of the groups; infinite where it is not above 0, so that nothing is left of A."""
    mean_P1, _ = mean_and_std(reward_PG, valid_PG, 1)
    return jnp.where(mean_P1 > 0, mean_P1, jnp.inf)


SCALES = {
    "group": lambda reward_PG, _, valid_PG: mean_and_std(reward_PG, valid_PG, 1)[1],
    "batch": lambda reward_PG, _, valid_PG: mean_and_std(reward_PG, valid_PG, None)[1],
    "advantages": lambda _, advantage_PG, valid_PG: mean_and_std(advantage_PG, valid_PG, None)[1],
    "mean": lambda reward_PG, _, valid_PG: _positive_mean(reward_PG, valid_PG),
    "none": None,
}


def decoupled_advantages(
    rewards: dict[str, Array], weights: dict[str, float], *, baseline: str, scale: str, eps: float
) -> Array:
    """advantage_PG of several rewards, each normalised apart (GDPO, arXiv:2601.05242).

    A = z(Σ_f w_f A_f) with A_f by `advantages` and z the normalisation over the batch. A function
    that abstains says nothing of that completion; where all abstain the advantage is 0.
    """
    parts = {
        name: advantages(reward_PG, baseline=baseline, scale=scale, eps=eps)
        for name, reward_PG in rewards.items()
    }
    total_PG = sum(weights[name] * part_PG for name, part_PG in parts.items())
    heard_PG = jnp.any(jnp.stack([jnp.isfinite(r) for r in rewards.values()]), axis=0)
    total_PG = jnp.where(heard_PG, total_PG, jnp.nan)
    advantage_PG = advantages(total_PG, baseline="batch", scale="batch", eps=eps)
    idle_PG = jnp.all(jnp.stack([part_PG == 0 for part_PG in parts.values()]), axis=0)
    return jnp.where(idle_PG, 0.0, advantage_PG)


def overlong_penalty(length_PG: Array, *, limit: int, buffer: float, penalty: float) -> Array:
    """What the reward of a long completion loses (DAPO, arXiv:2503.14476), lengths in tokens.

    Nothing before the last share `buffer` of the `limit`, then linearly up to `penalty` at it.
    """
    excess_PG = (length_PG - (1 - buffer) * limit) / (buffer * limit)
    return penalty * jnp.clip(excess_PG, 0.0, 1.0)


@jax.jit
def group_metrics(reward_PG: Array, solved_PG: Array) -> dict[str, Array]:
    """How much the groups have to teach; `solved_PG` says which completions are right.

    The rewards are those of the task, before any penalty: noise would hide a lack of variance.
    """
    valid_PG = jnp.isfinite(reward_PG)
    return {
        "group/zero_variance": jnp.mean(all_equal(reward_PG, valid_PG, 1)),
        "group/solved_all": jnp.mean(jnp.all(solved_PG, axis=1)),
        "group/solved_none": jnp.mean(~jnp.any(solved_PG, axis=1)),
        "reward/abstained": jnp.mean(~valid_PG),
    }


@jax.jit
def advantage_metrics(advantage_PG: Array) -> dict[str, Array]:
    """The spread of the advantages over the batch."""
    return {
        "advantage/std": jnp.std(advantage_PG),
        "advantage/max_abs": jnp.max(jnp.abs(advantage_PG)),
    }
