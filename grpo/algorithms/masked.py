"""Sums over the tokens that count.

Values outside the mask are replaced before any arithmetic, so a NaN there reaches neither a sum nor
a gradient.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def inside(x: Array, mask: Array) -> Array:
    """x where the mask is not 0, and 0 elsewhere."""
    return jnp.where(mask != 0, x, 0.0)


def masked_sum(x: Array, weight: Array) -> Array:
    """Σ weight · x over the entries whose weight is not 0."""
    return jnp.sum(inside(x, weight) * weight)


def sequence_mean(x_BC: Array, mask_BC: Array) -> Array:
    """mean_B1: each row's mean over its own tokens; 0 for a row without any."""
    count_B1 = jnp.sum(mask_BC != 0, axis=1, keepdims=True)
    return jnp.sum(inside(x_BC, mask_BC), axis=1, keepdims=True) / jnp.maximum(count_B1, 1)
