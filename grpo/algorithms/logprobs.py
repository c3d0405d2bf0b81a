"""Log-probabilities of given tokens over a large vocabulary, never holding [B, T, V].

    logprob_BC[b, c] = log π(target_BC[b, c])       π and its temperature: distribution.py
    entropy_BC[b, c] = -Σ_v π(v) log π(v)

Where the logits of all positions fit, they are made. Elsewhere the vocabulary is walked in tiles
(vocabulary.py), and of the tokens only those that count go through: they are moved together, and
for the blocks of tokens that remain nothing is computed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from grpo.algorithms.distribution import logprob_of, temper
from grpo.algorithms.vocabulary import Walk, scores

Array = jax.Array
Unembed = Callable[[Array, Array], Array]  # (table [V, D], hidden [..., D]) -> logits [..., V]
AT_ONCE = 2**24  # logits on one device that need no walk: 64 MiB of float32
TILE = 2**22  # logits of a block of tokens and a tile of the vocabulary
BLOCK = 256  # tokens of a block


def tile_width(tokens: int, vocab_size: int) -> int:
    """How many rows of the table have their logits for so many tokens in memory at once."""
    return min(vocab_size, max(1, TILE // tokens))


def entropy_of(z: Array) -> Array:
    """H = log Σ exp z - Σ π z, over the last axis of z."""
    return jax.nn.logsumexp(z, axis=-1) - jnp.sum(jax.nn.softmax(z, axis=-1) * z, axis=-1)


def token_logprobs(
    unembed: Unembed,
    table_VD: Array,
    hidden_BCD: Array,
    target_BC: Array,
    mask_BC: Array | None = None,
    *,
    temperature: float,
    with_entropy: bool,
    entropy_learns: bool = True,
    at_once: int = AT_ONCE,
    tile: int | None = None,
    block: int = BLOCK,
    row_parts: int = 1,
    table_parts: int = 1,
) -> tuple[Array, Array | None]:
    """logprob_BC and entropy_BC (None unless asked for), differentiable in table and hidden.

    Where the mask is 0 they are 0, or what they are if that costs nothing. On a mesh the rows are
    in `row_parts` and the table in `table_parts`; there every token goes through.
    """
    (B, C), V = target_BC.shape, table_VD.shape[0]
    if at_once * row_parts * table_parts >= B * C * V:
        z_BCV = temper(unembed(table_VD, hidden_BCD), temperature)
        return logprob_of(z_BCV, target_BC), entropy_of(z_BCV) if with_entropy else None
    tokens = hidden_BCD.reshape(B * C, -1), target_BC.reshape(B * C)

    def walk(count: int) -> Walk:
        """For so many tokens at a time on a device."""
        width = min(tile or tile_width(count, V), V // table_parts)
        learns = with_entropy and entropy_learns
        return Walk(unembed, temperature, width, table_parts, with_entropy, learns)

    if mask_BC is None or row_parts * table_parts > 1:
        one_block = [x[None] for x in tokens]
        found = scores(walk(B * C // row_parts), table_VD, *one_block, jnp.int32(1))
        found = jax.tree.map(lambda x: x.reshape(B, C), found)
    else:
        of_blocks = functools.partial(scores, walk(block), table_VD)
        found = of_those_that_count(of_blocks, tokens, mask_BC, block)
    return found.logprob_N, found.entropy_N


def of_those_that_count(
    of_blocks: Callable[..., Any], tokens: Sequence[Array], mask_BC: Array, block: int
) -> Any:
    """of_blocks(*tokens in blocks, blocks that are filled), as [B, C]; 0 where the mask is 0.

    The tokens that count are moved together, so that the last blocks are empty.
    """
    counts_N = mask_BC.reshape(-1) > 0
    order_N = jnp.argsort(~counts_N, stable=True)
    place_N = jnp.argsort(order_N)
    blocks = [_in_blocks(x[order_N], block) for x in tokens]
    found = of_blocks(*blocks, -(-jnp.sum(counts_N) // block))
    found = jax.tree.map(lambda x: x.reshape(-1)[place_N].reshape(mask_BC.shape), found)
    return jax.tree.map(lambda x: jnp.where(mask_BC > 0, x, 0.0), found)


def _in_blocks(x: Array, block: int) -> Array:
    """x [N, ...] as [blocks, block, ...], filled up with zeros."""
    padding = ((0, -x.shape[0] % block),) + ((0, 0),) * (x.ndim - 1)
    return rearrange(jnp.pad(x, padding), "(m n) ... -> m n ...", n=block)
