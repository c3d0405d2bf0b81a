"""Log-probabilities of given tokens over a large vocabulary, never holding [B, T, V].

    logprob_BC[b, c] = log π(target_BC[b, c])       π and its temperature: distribution.py
    entropy_BC[b, c] = -Σ_v π(v) log π(v)

The positions go through `unembed` a chunk at a time, so the logits that exist at once are those of
one chunk. `∂ logprob / ∂ hidden` is one row of D numbers per token, whatever the loss makes of the
log-probability; it is computed with the value, while the chunk's logits are there, and kept. The
gradient for the embedding table does depend on the loss: a second walk over the chunks recomputes
their logits, and disappears from the program where the table is frozen.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from grpo.algorithms.distribution import logprob_of, temper

Array = jax.Array
Params = Any
Unembed = Callable[[Params, Array], Array]  # (params, hidden [B, C, D]) -> logits [B, C, V]
BUDGET = 2**24  # logits of one chunk on one device: 64 MiB of float32


def chunk_size(rows: int, vocab_size: int, budget: int = BUDGET) -> int:
    """How many positions of `rows` rows may have their logits in memory at once."""
    return max(1, budget // (rows * vocab_size))


def entropy_of(z: Array) -> Array:
    """H = log Σ exp z - Σ π z, over the last axis of z."""
    return jax.nn.logsumexp(z, axis=-1) - jnp.sum(jax.nn.softmax(z, axis=-1) * z, axis=-1)


def token_logprobs(
    unembed: Unembed,
    params: Params,
    hidden_BCD: Array,
    target_BC: Array,
    *,
    temperature: float | Array,
    chunk: int,
    with_entropy: bool,
) -> tuple[Array, Array | None]:
    """logprob_BC and entropy_BC (None unless asked for), differentiable in params and hidden."""

    def scores(operands: tuple[Params, Array], hidden_BCD: Array, target_BC: Array):
        params, temperature = operands
        z_BCV = temper(unembed(params, hidden_BCD), temperature)
        entropy = (entropy_of(z_BCV),) if with_entropy else ()
        return (logprob_of(z_BCV, target_BC), *entropy)

    operands = (params, jnp.asarray(temperature, jnp.float32))
    length = target_BC.shape[1]
    values: Any
    if chunk >= length:  # all logits may be there at once: nothing has to be computed again
        values = scores(operands, hidden_BCD, target_BC)
    else:
        padding = ((0, 0), (0, -length % chunk))
        hidden_BCD = jnp.pad(hidden_BCD, (*padding, (0, 0)))
        chunks = (
            rearrange(hidden_BCD, "B (chunks C) D -> chunks B C D", C=chunk),
            rearrange(jnp.pad(target_BC, padding), "B (chunks C) -> chunks B C", C=chunk),
        )
        values = _by_chunk(scores, operands, *chunks)
        values = [rearrange(value, "chunks B C -> B (chunks C)")[:, :length] for value in values]
    return values[0], values[1] if with_entropy else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_chunk(scores: Callable, operands: Any, hidden: Array, target: Array) -> Any:
    """The scores of every chunk, one chunk after the other."""
    return jax.lax.map(lambda chunk: scores(operands, *chunk), (hidden, target))


def _forward(scores: Callable, operands: Any, hidden: Array, target: Array):
    """The scores, and the slope of each by the hidden state of its own token."""

    def one(chunk: tuple[Array, Array]):
        hidden_BCD, target_BC = chunk
        values, pull = jax.vjp(lambda x_BCD: scores(operands, x_BCD, target_BC), hidden_BCD)
        # A token's scores depend on its own hidden state only, so that pulling back ones gives
        # every token its own slope.
        slopes = []
        for i in range(len(values)):
            unit = tuple(jnp.full_like(value, i == j) for j, value in enumerate(values))
            slopes.append(pull(unit)[0].astype(jnp.float32))
        return values, tuple(slopes)

    values, slopes = jax.lax.map(one, (hidden, target))
    return values, (operands, hidden, target, slopes)


def _backward(scores: Callable, residuals: tuple, grads: tuple[Array, ...]):
    """The gradients for operands and hidden states, given those of the scores."""
    operands, hidden, target, slopes = residuals
    grad_hidden = jnp.zeros(hidden.shape, jnp.float32)
    for grad, slope in zip(grads, slopes, strict=True):
        grad_hidden += grad[..., None] * slope

    def add(total: Any, chunk: tuple):
        hidden_BCD, target_BC, grads_BC = chunk
        _, pull = jax.vjp(lambda operands: scores(operands, hidden_BCD, target_BC), operands)
        return jax.tree.map(jnp.add, total, pull(grads_BC)[0]), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), operands)
    total, _ = jax.lax.scan(add, zeros, (hidden, target, grads))
    total = jax.tree.map(lambda x, like: x.astype(like.dtype), total, operands)
    return total, grad_hidden.astype(hidden.dtype), None


_by_chunk.defvjp(_forward, _backward)
