"""The importance ratio of a token, as a logarithm: log π(token) - log π_old(token), pooled.

    token      as it is: each token by itself                              GRPO
    sequence   its mean over the sequence's tokens, at each of them        GSPO, arXiv:2507.18071
    geometric  the same mean of log-ratios that are cut off first where    GMPO, arXiv:2507.20673
               they would raise the objective beyond the clip range

Under `geometric` the clipping of the surrogate is the one that happened here: a mean of ratios that
are each within a bound is within it.

The keywords of a ratio are the fields of an Objective that it reads.
"""

import math

import jax
import jax.numpy as jnp

from grpo.algorithms.masked import sequence_mean

Array = jax.Array


def token(log_ratio_BC: Array, mask_BC: Array, advantage_B1: Array) -> Array:
    """Each token by itself."""
    return log_ratio_BC


def sequence(log_ratio_BC: Array, mask_BC: Array, advantage_B1: Array) -> Array:
    """(π/π_old)^(1/length) of the whole sequence."""
    return jnp.broadcast_to(sequence_mean(log_ratio_BC, mask_BC), log_ratio_BC.shape)


def geometric(
    log_ratio_BC: Array, mask_BC: Array, advantage_B1: Array, *, clip_low: float, clip_high: float
) -> Array:
    """The sequence's ratio, of tokens clipped one by one, to the pessimistic side."""
    clipped_BC = jnp.where(
        advantage_B1 > 0,
        jnp.minimum(log_ratio_BC, math.log1p(clip_high)),
        jnp.maximum(log_ratio_BC, math.log1p(-clip_low)),
    )
    return sequence(clipped_BC, mask_BC, advantage_B1)


RATIOS = {"token": token, "sequence": sequence, "geometric": geometric}
