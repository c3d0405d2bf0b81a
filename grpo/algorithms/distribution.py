"""The distribution that completions are drawn from, in one place for sampler and trainer.

    z = logits / T          logits in float32, after the model's own soft-cap
    π(v) = softmax(z)_v     what every log-probability here means: temperature applied,
                            the whole vocabulary, nothing cut off
    draw from               π restricted to the kept tokens and renormalised

Kept are, one after the other: the `top_k` likeliest tokens; of these, renormalised, the likeliest
that together reach `top_p`; of these, those at least `min_p` times as likely as the likeliest.
Tokens tied at an edge are all kept. 0, 1 and 0 switch the three off. T = 0 draws the likeliest
token, and is scored at T = 1.

So truncation changes what is drawn and not how it is scored: sample_logprob and the trainer's
log-probability are the same function of the logits, and their ratio is 1 before the first update
for every choice of T, top_k, top_p and min_p. The price: under truncation the policy gradient is
that of π at tokens drawn from a narrower distribution, as in every trainer that scores this way.

All settings are traced values: none of them recompiles anything.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
BLOCK, WITHIN = 0, 1  # the two draws of a token


class Sampling(NamedTuple):
    """How tokens are drawn; see the module."""

    temperature: float | Array
    top_k: int | Array
    top_p: float | Array
    min_p: float | Array


def temper(logits: Array, temperature: float | Array) -> Array:
    """z = logits / T, in float32."""
    temperature = jnp.asarray(temperature, jnp.float32)
    return logits.astype(jnp.float32) / jnp.where(temperature > 0, temperature, 1.0)


def edge(z_BV: Array, is_enough) -> Array:
    """edge_B1: the largest value of z for which `is_enough(z >= edge)` holds, in every row.

    Bisection over the bit patterns of float32, which are ordered as the numbers are: 32 passes over
    the row, where sorting a vocabulary would take hundreds. `is_enough` maps kept_BV to bool_B1 and
    must stay true when more is kept.
    """

    def value(code_B1: Array) -> Array:
        # Codes count up through all floats: those of negative ones are their bits, inverted.
        bits_B1 = jnp.where(code_B1 < 0, code_B1 ^ jnp.int32(0x7FFFFFFF), code_B1)
        return jax.lax.bitcast_convert_type(bits_B1, jnp.float32)

    def halve(_, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low_B1, high_B1 = bounds
        middle_B1 = (low_B1 >> 1) + (high_B1 >> 1) + (low_B1 & high_B1 & 1)
        enough_B1 = is_enough(z_BV >= value(middle_B1))
        return jnp.where(enough_B1, middle_B1, low_B1), jnp.where(enough_B1, high_B1, middle_B1)

    shape = (z_BV.shape[0], 1)
    low_B1 = jnp.full(shape, jnp.int32(-0x7F800001))  # -inf: keeps everything
    high_B1 = jnp.full(shape, jnp.int32(0x7F800000))  # +inf: keeps nothing
    low_B1, _ = jax.lax.fori_loop(0, 32, halve, (low_B1, high_B1))
    return value(low_B1)


def restrict(z_BV: Array, sampling: Sampling) -> Array:
    """z_BV with -inf in place of the tokens that are not kept."""

    def keep(z_BV: Array, edge_B1: Array) -> Array:
        return jnp.where(z_BV >= edge_B1, z_BV, -jnp.inf)

    top_B1 = jnp.max(z_BV, axis=-1, keepdims=True)  # always kept
    top_k = jnp.where(sampling.top_k > 0, sampling.top_k, z_BV.shape[1])
    z_BV = keep(z_BV, edge(z_BV, lambda kept_BV: jnp.sum(kept_BV, 1, keepdims=True) >= top_k))
    p_BV = jax.nn.softmax(z_BV, axis=-1)
    nucleus_B1 = edge(
        z_BV, lambda kept_BV: jnp.sum(p_BV * kept_BV, 1, keepdims=True) >= sampling.top_p
    )
    # A sum of all p may round to less or more than 1, so 1 is taken at its word.
    z_BV = keep(z_BV, jnp.where(sampling.top_p < 1, jnp.minimum(nucleus_B1, top_B1), -jnp.inf))
    return keep(z_BV, top_B1 + jnp.minimum(jnp.log(sampling.min_p), 0.0))


class Blocks(NamedTuple):
    """A vocabulary in about √V blocks of neighbours, and the mass of each block."""

    logits_BNW: Array
    temperature: float | Array
    mass_BN: Array  # log Σ exp z of a block


def blocks_of(logits_BV: Array, temperature: float | Array = 1.0) -> Blocks:
    """The blocks of a vocabulary; the mass of all is log Σ_v exp z_v.

    They hold the logits: z is made where it is read, so that no pass over V is spent on it alone.
    """
    size = logits_BV.shape[1]
    width = math.gcd(size, 1 << (size.bit_length() // 2))
    logits_BNW = logits_BV.reshape(logits_BV.shape[0], size // width, width)
    mass_BN = jax.nn.logsumexp(temper(logits_BNW, temperature), axis=2)
    return Blocks(logits_BNW, temperature, mass_BN)


def token_at(blocks: Blocks, block_B: Array, within) -> tuple[Array, Array]:
    """The token that `within` finds in a block of each row, and its z."""
    logits_BW = jnp.take_along_axis(blocks.logits_BNW, block_B[:, None, None], axis=1)[:, 0]
    z_BW = temper(logits_BW, blocks.temperature)
    place_B = within(z_BW)
    z_B = jnp.take_along_axis(z_BW, place_B[:, None], axis=1)[:, 0]
    return (block_B * z_BW.shape[1] + place_B).astype(jnp.int32), z_B


def draw(key_B: Array, blocks: Blocks) -> tuple[Array, Array]:
    """token_B ~ softmax(z_BV), each row by its own key, and its z.

    First a block by its mass, then the token in it: P(block) P(token | block). Each of the two is
    the argmax of z + Gumbel noise, so a draw takes 2√V random numbers, not V.
    """
    categorical = jax.vmap(jax.random.categorical)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    block_B = categorical(fold(key_B, BLOCK), blocks.mass_BN)
    return token_at(blocks, block_B, lambda z_BW: categorical(fold(key_B, WITHIN), z_BW))


def likeliest(blocks: Blocks) -> tuple[Array, Array]:
    """The token of the largest z, the first of equals, and its z; an argmax over all V is slow."""
    block_B = jnp.argmax(jnp.max(blocks.logits_BNW, axis=2), axis=1)
    return token_at(blocks, block_B, lambda z_BW: jnp.argmax(z_BW, axis=1))


def sample(key_B: Array, logits_BV: Array, sampling: Sampling) -> tuple[Array, Array]:
    """token_B, and its log-probability under π (not under what it was drawn from)."""

    def draw_kept() -> tuple[Array, Array]:
        # z is made in here: what is made before the branches XLA writes down for all of them.
        z_BV = temper(logits_BV, sampling.temperature)
        return draw(key_B, blocks_of(restrict(z_BV, sampling)))

    blocks = blocks_of(logits_BV, sampling.temperature)
    restricts = (sampling.top_k > 0) | (sampling.top_p < 1) | (sampling.min_p > 0)
    is_greedy = jnp.asarray(sampling.temperature) <= 0
    token_B, z_B = jax.lax.switch(
        jnp.where(is_greedy, 0, 1 + restricts),
        (
            lambda: likeliest(blocks),
            lambda: draw(key_B, blocks),
            draw_kept,
        ),
    )
    return token_B, z_B - jax.nn.logsumexp(blocks.mass_BN, axis=1)


def logprob_of(z: Array, token: Array) -> Array:
    """log π(token) = z_token - log Σ_v exp z_v, over the last axis of z."""
    return picked(z, token) - jax.nn.logsumexp(z, axis=-1)


def picked(z: Array, token: Array) -> Array:
    """z at the token, as a masked sum: it fuses, its gradient is no scatter, and V may be cut."""
    vocabulary = jnp.expand_dims(jnp.arange(z.shape[-1]), range(z.ndim - 1))
    return jnp.sum(jnp.where(token[..., None] == vocabulary, z, 0.0), axis=-1)
