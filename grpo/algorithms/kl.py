"""Estimators of KL(policy ‖ reference) at sampled tokens, from d = ref_logprob - logprob.

    k1  -d              unbiased as a value, may be negative
    k2  d² / 2          biased; its gradient is the unbiased one
    k3  exp(d) - d - 1  unbiased as a value, never negative; GRPO's choice (arXiv:2402.03300)

(Schulman 2020, "Approximating KL divergence".) A value is not a gradient: differentiated as a loss
on samples of the policy itself, k1 gives ∇ log π, whose expectation is zero: it is logged, and
restrains nothing. k2 gives the exact gradient of each token's KL given what precedes it, k3 that of
the reverse, KL(reference ‖ policy). Taken into the reward instead (`kl_in: reward`), k1 is right.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def k1(logprob: Array, ref_logprob: Array) -> Array:
    """log π - log π_ref."""
    return logprob - ref_logprob


def k2(logprob: Array, ref_logprob: Array) -> Array:
    """(log π - log π_ref)² / 2."""
    return jnp.square(logprob - ref_logprob) / 2


def k3(logprob: Array, ref_logprob: Array) -> Array:
    """π_ref / π - log(π_ref / π) - 1."""
    d = ref_logprob - logprob
    return jnp.expm1(d) - d


KL = {"k1": k1, "k2": k2, "k3": k3}
