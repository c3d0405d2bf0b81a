"""The loss of a policy update: GRPO and its relatives, from log-probabilities to one number.

    L = Σ_t weight_t ( - w_t J(ρ_t, A_t) + kl_coef · KL_t - entropy_coef · H_t )
    A_t = A - teacher_coef · (log π_old(o_t) - log π_T(o_t))        A without a teacher

    ρ = π / π_old        ratios.py       J    the surrogate objective    surrogates.py
    A                    advantages.py   w    sampler correction         correction.py
    weight               aggregation.py  KL   against the reference      kl.py

Where `kl_in` is "reward", KL is instead taken from the reward before the advantage (`kl_penalty`).

What a teacher takes from A is an estimate of KL(π_old ‖ π_T) at each token: on-policy distillation
(Thinking Machines Lab, 2025; their tinker-cookbook), which is reinforcement learning with a reward
for every token, with rewards of completions beside it or (A = 0) without. Its mean gradient at
ρ = 1 is that of the KL at each position of what the policy has written; a token does not answer for
what it leads to, as with their discount of 0. Deviations: π_old is that of the training graph,
theirs the sampler's; and J is any surrogate, theirs ρ A unless told otherwise. Known flaw: log π_T
is not bounded, so a token that the teacher holds for impossible can outweigh a batch.

"My loss is 0": before the first update of a batch ρ = 1 and J = A; under `sequence` weights, or
equal lengths, Σ weight · A = 0 because a group's advantages sum to 0. The gradient, which is
Σ weight · A ∇ log π, is not 0; `grad_norm` shows it. See docs/metrics.md.

Deviation from the papers: log ρ and log w are held within ±20, so that a token which is clipped
anyway has a gradient of 0 and not of 0 · ∞.
"""

import jax
import jax.numpy as jnp

from grpo.algorithms import correction
from grpo.algorithms.aggregation import token_weights
from grpo.algorithms.groups import Groups
from grpo.algorithms.kl import KL, k3
from grpo.algorithms.masked import inside, masked_sum, sequence_mean
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import Objective
from grpo.algorithms.ratios import RATIOS
from grpo.algorithms.surrogates import BEYOND, SURROGATES

Array = jax.Array
LIMIT = 20.0  # of log-ratios


def with_token_weights(groups: Groups, *, limit: int, objective: Objective) -> Groups:
    """The rows of one update with their weights and shares, fixed here over all of them.

    A rollout that serves several minibatches is cut first and weighed a minibatch at a time, so
    that microbatches may then cut the rows anyhow. `limit` is the longest completion that the
    sampler allows. Under `mask_truncated` a truncated row weighs nothing in the loss; it still
    counts in its group's baseline and in the metrics.
    """
    mask_BC = groups.completion_mask_BC != 0
    learnt_BC = mask_BC & ~(groups.truncated_B[:, None] & objective.mask_truncated)
    return groups._replace(
        completion_mask_BC=mask_BC,
        weight_BC=token_weights(learnt_BC, aggregation=objective.aggregation, constant=limit),
        share_BC=mask_BC / jnp.maximum(jnp.sum(mask_BC), 1),
    )


def policy_loss(
    logprob_BC: Array, entropy_BC: Array | None, groups: Groups, *, objective: Objective
) -> tuple[Array, Metrics]:
    """The loss of some of an update's rows, and the metrics; both add up over rows."""
    _require(objective, entropy_BC, groups)
    mask_BC, weight_BC, share_BC = groups.completion_mask_BC, groups.weight_BC, groups.share_BC
    logprob_BC = inside(logprob_BC, mask_BC)
    old_BC = logprob_BC if groups.old_logprob_BC is None else groups.old_logprob_BC
    old_BC = inside(jax.lax.stop_gradient(old_BC), mask_BC)
    advantage_B1 = jax.lax.stop_gradient(groups.advantage_B)[:, None]
    advantage_BC, sums = jnp.broadcast_to(advantage_B1, mask_BC.shape), {}
    if groups.teacher_logprob_BC is not None:
        teacher_BC = inside(jax.lax.stop_gradient(groups.teacher_logprob_BC), mask_BC)
        sums["teacher/kl"] = masked_sum(old_BC - teacher_BC, share_BC)
        advantage_BC -= objective.teacher_coef * (old_BC - teacher_BC)

    log_ratio_BC = jnp.clip(logprob_BC - old_BC, -LIMIT, LIMIT)
    pool, surrogate = RATIOS[objective.ratio], SURROGATES[objective.surrogate]
    pooled_BC = pool(log_ratio_BC, mask_BC, advantage_B1, **objective.read_by(pool))
    ratio_BC = jnp.exp(pooled_BC)
    gain_BC = surrogate(ratio_BC, advantage_BC, logprob_BC, **objective.read_by(surrogate))
    seen_BC = jnp.exp(log_ratio_BC) if objective.ratio == "geometric" else ratio_BC
    sums |= _beyond(seen_BC, advantage_BC, logprob_BC, share_BC, objective)
    sums["ratio/mean"] = masked_sum(ratio_BC, share_BC)
    tops = {"ratio/max": jnp.max(inside(ratio_BC, mask_BC))}

    if groups.sample_logprob_BC is not None:
        sample_BC = inside(jax.lax.stop_gradient(groups.sample_logprob_BC), mask_BC)
        gap_BC = old_BC - sample_BC
        sums["gap/mean"] = masked_sum(jnp.abs(gap_BC), share_BC)
        tops["gap/max"] = jnp.max(jnp.abs(gap_BC))
        if objective.correction is not None:
            level, cap = objective.correction_level, objective.correction_cap
            w_BC = correction.importance(gap_BC, mask_BC, level=level, limit=LIMIT)
            gain_BC = gain_BC * correction.CORRECTIONS[objective.correction](w_BC, cap)
            sums |= correction.metrics(w_BC, share_BC, cap)
    else:
        sample_BC = old_BC
    if objective.off_policy_limit is not None:
        # DeepSeek-V3.2, arXiv:2512.02556: what the policy has left behind, and was bad anyway.
        drift_B1 = sequence_mean(sample_BC - jax.lax.stop_gradient(logprob_BC), mask_BC)
        is_stale_BC = (advantage_BC < 0) & (drift_B1 > objective.off_policy_limit)
        gain_BC = jnp.where(is_stale_BC, 0.0, gain_BC)
        sums["off_policy/masked"] = masked_sum(is_stale_BC.astype(jnp.float32), share_BC)

    loss = sums["loss/policy"] = -masked_sum(gain_BC, weight_BC)
    if groups.ref_logprob_BC is not None:
        ref_BC = inside(jax.lax.stop_gradient(groups.ref_logprob_BC), mask_BC)
        sums["kl"] = masked_sum(k3(jax.lax.stop_gradient(logprob_BC), ref_BC), share_BC)
        if objective.kl_in == "loss" and objective.kl_coef:
            sums["loss/kl"] = masked_sum(KL[objective.kl](logprob_BC, ref_BC), weight_BC)
            loss = loss + objective.kl_coef * sums["loss/kl"]
    if entropy_BC is not None:
        sums["entropy"] = masked_sum(jax.lax.stop_gradient(entropy_BC), share_BC)
        if objective.entropy_coef:
            loss = loss - objective.entropy_coef * masked_sum(entropy_BC, weight_BC)
    sums["loss"] = loss
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops=jax.lax.stop_gradient(tops))


def _require(objective: Objective, entropy_BC: Array | None, groups: Groups) -> None:
    """What the objective needs is there, or an option would silently do nothing."""
    old, ref, sample = groups.old_logprob_BC, groups.ref_logprob_BC, groups.sample_logprob_BC
    teacher = groups.teacher_logprob_BC
    wanted = {
        "entropy": bool(objective.entropy_coef) and entropy_BC is None,
        "ref_logprob": objective.kl_in == "loss" and objective.kl_coef and ref is None,
        "teacher_logprob": objective.teacher_coef and teacher is None,
        "sample_logprob": objective.correction is not None and sample is None,
        "old_logprob or sample_logprob": (
            objective.off_policy_limit is not None and old is None and sample is None
        ),
    }
    if missing := [name for name, lacks in wanted.items() if lacks]:
        raise ValueError(f"the objective needs {', '.join(missing)}: it was not given")


def _beyond(
    ratio_BC: Array, advantage_BC: Array, logprob_BC: Array, share_BC: Array, objective: Objective
) -> dict[str, Array]:
    """The shares of tokens that the surrogate holds back, by the way it does."""
    if (beyond := BEYOND.get(objective.surrogate)) is None:
        return {}
    tokens = beyond(ratio_BC, advantage_BC, logprob_BC, **objective.read_by(beyond))
    return {name: masked_sum(x.astype(jnp.float32), share_BC) for name, x in tokens.items()}


def kl_penalty(
    logprob_BC: Array, ref_logprob_BC: Array, mask_BC: Array, *, objective: Objective
) -> Array:
    """penalty_B = kl_coef · Σ_t KL_t, which the rewards lose where `kl_in` is "reward"."""
    logprob_BC, ref_logprob_BC = inside(logprob_BC, mask_BC), inside(ref_logprob_BC, mask_BC)
    return objective.kl_coef * jnp.sum(KL[objective.kl](logprob_BC, ref_logprob_BC), axis=1)


def supervised_loss(logprob_BC: Array, weight_BC: Array) -> tuple[Array, Metrics]:
    """-Σ weight · log π: the mean negative log-likelihood of the tokens that count."""
    loss = -masked_sum(logprob_BC, weight_BC)
    return loss, Metrics(sums={"loss": jax.lax.stop_gradient(loss)}, tops={})
