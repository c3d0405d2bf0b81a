"""The loss of a policy update: GRPO and its relatives, from log-probabilities to one number.

    L = Σ_t weight_t ( - w_t J(ρ_t, A) + kl_coef · KL_t - entropy_coef · H_t )

    ρ = π / π_old        ratios.py       J    the surrogate objective    surrogates.py
    A                    advantages.py   w    sampler correction         correction.py
    weight               aggregation.py  KL   against the reference      kl.py

Where `kl_in` is "reward", KL is instead taken from the reward before the advantage (`penalty`).

"My loss is 0": before the first update of a batch ρ = 1, and with a group's advantages summing to
0 so does Σ weight · A (exactly under `token` and equal lengths, nearly otherwise). Its gradient
Σ weight · A ∇ log π is not 0; `grad_norm` shows it. See docs/metrics.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms import correction
from grpo.algorithms.aggregation import token_weights
from grpo.algorithms.kl import KL, k3
from grpo.algorithms.masked import inside, masked_sum, sequence_mean
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import Objective
from grpo.algorithms.ratios import RATIOS
from grpo.algorithms.surrogates import SURROGATES

Array = jax.Array


class Experience(NamedTuple):
    """What an update learns from, frozen while it learns. Its rows may be cut in any way."""

    mask_BC: Array  # the tokens of the completions, the first stop token included
    weight_BC: Array  # of the loss: sums to 1 over the whole batch (but for `constant`)
    share_BC: Array  # of the metrics: 1 / (tokens of the whole batch)
    advantage_B: Array
    old_logprob_BC: Array | None  # None: the policy as it is (one update per batch)
    ref_logprob_BC: Array | None  # None: no reference is needed
    sample_logprob_BC: Array | None  # as the sampler told it


def freeze(
    *,
    mask_BC: Array,
    truncated_B: Array,
    advantage_B: Array,
    old_logprob_BC: Array | None,
    ref_logprob_BC: Array | None,
    sample_logprob_BC: Array | None,
    limit: int,
    objective: Objective,
) -> Experience:
    """The experience of a whole batch; its weights and shares are fixed here, once.

    `limit` is the longest completion that the sampler allows.
    """
    mask_BC = mask_BC != 0
    learnt_BC = mask_BC & ~(truncated_B[:, None] & objective.mask_truncated)
    weight_BC = token_weights(learnt_BC, aggregation=objective.aggregation, constant=limit)
    return Experience(
        mask_BC=mask_BC,
        weight_BC=weight_BC,
        share_BC=mask_BC / jnp.maximum(jnp.sum(mask_BC), 1),
        advantage_B=advantage_B,
        old_logprob_BC=old_logprob_BC,
        ref_logprob_BC=ref_logprob_BC,
        sample_logprob_BC=sample_logprob_BC,
    )


def policy_loss(
    logprob_BC: Array, entropy_BC: Array | None, experience: Experience, *, objective: Objective
) -> tuple[Array, Metrics]:
    """The loss of some rows of an experience, and the metrics; both add up over rows."""
    mask_BC, weight_BC, share_BC = (
        experience.mask_BC, experience.weight_BC, experience.share_BC,
    )  # fmt: skip
    frozen_BC = jax.lax.stop_gradient(logprob_BC)
    old_BC = experience.old_logprob_BC
    old_BC = frozen_BC if old_BC is None else jax.lax.stop_gradient(old_BC)
    advantage_B1 = jax.lax.stop_gradient(experience.advantage_B)[:, None]
    low, high = objective.clip_low, objective.clip_high

    log_ratio_BC = inside(logprob_BC - old_BC, mask_BC)
    pool = RATIOS[objective.ratio]
    ratio_BC = jnp.exp(pool(log_ratio_BC, mask_BC, advantage_B1, low, high))
    surrogate = SURROGATES[objective.surrogate]
    objective_BC = surrogate(ratio_BC, advantage_B1, inside(logprob_BC, mask_BC), objective)
    sums = {"ratio/mean": masked_sum(ratio_BC, share_BC)}
    tops = {"ratio/max": jnp.max(inside(ratio_BC, mask_BC))}

    if low is not None and high is not None:
        seen_BC = jnp.exp(log_ratio_BC) if objective.ratio == "geometric" else ratio_BC
        is_low_BC = (seen_BC < 1 - low) & (advantage_B1 < 0)
        is_high_BC = (seen_BC > 1 + high) & (advantage_B1 > 0)
        sums["clip/low"] = masked_sum(is_low_BC.astype(jnp.float32), share_BC)
        sums["clip/high"] = masked_sum(is_high_BC.astype(jnp.float32), share_BC)
    if objective.off_policy_limit is not None:
        # DeepSeek-V3.2, arXiv:2512.02556: what the policy has left behind and was bad anyway.
        drift_B1 = sequence_mean(-jax.lax.stop_gradient(log_ratio_BC), mask_BC)
        is_stale_B1 = (advantage_B1 < 0) & (drift_B1 > objective.off_policy_limit)
        objective_BC = jnp.where(is_stale_B1, 0.0, objective_BC)
        stale_BC = jnp.broadcast_to(is_stale_B1, mask_BC.shape).astype(jnp.float32)
        sums["off_policy/masked"] = masked_sum(stale_BC, share_BC)
    if experience.sample_logprob_BC is not None:
        gap_BC = inside(old_BC - experience.sample_logprob_BC, mask_BC)
        sums["gap/mean"] = masked_sum(jnp.abs(gap_BC), share_BC)
        tops["gap/max"] = jnp.max(jnp.abs(gap_BC))
        cap = objective.correction_cap
        if objective.correction is not None and cap is not None:
            w_BC = correction.importance(gap_BC, mask_BC, level=objective.correction_level)
            objective_BC = objective_BC * correction.CORRECTIONS[objective.correction](w_BC, cap)
            sums |= correction.metrics(w_BC, share_BC, cap)

    loss = sums["loss/policy"] = -masked_sum(objective_BC, weight_BC)
    if experience.ref_logprob_BC is not None:
        ref_BC = inside(jax.lax.stop_gradient(experience.ref_logprob_BC), mask_BC)
        live_BC = inside(logprob_BC, mask_BC)
        sums["kl"] = masked_sum(k3(jax.lax.stop_gradient(live_BC), ref_BC), share_BC)
        if objective.kl_in == "loss" and objective.kl_coef:
            sums["loss/kl"] = masked_sum(KL[objective.kl](live_BC, ref_BC), weight_BC)
            loss = loss + objective.kl_coef * sums["loss/kl"]
    if entropy_BC is not None:
        sums["entropy"] = masked_sum(jax.lax.stop_gradient(entropy_BC), share_BC)
        if objective.entropy_coef:
            loss = loss - objective.entropy_coef * masked_sum(entropy_BC, weight_BC)
    sums["loss"] = loss
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops=jax.lax.stop_gradient(tops))


def penalty(
    logprob_BC: Array, ref_logprob_BC: Array, mask_BC: Array, *, objective: Objective
) -> Array:
    """penalty_B = kl_coef · Σ_t KL_t, which the rewards lose where `kl_in` is "reward"."""
    logprob_BC, ref_logprob_BC = inside(logprob_BC, mask_BC), inside(ref_logprob_BC, mask_BC)
    return objective.kl_coef * jnp.sum(KL[objective.kl](logprob_BC, ref_logprob_BC), axis=1)


def supervised_loss(logprob_BC: Array, weight_BC: Array) -> tuple[Array, Metrics]:
    """-Σ weight · log π: the mean negative log-likelihood of the tokens that count."""
    loss = -masked_sum(logprob_BC, weight_BC)
    return loss, Metrics(sums={"loss": jax.lax.stop_gradient(loss)}, tops={})
