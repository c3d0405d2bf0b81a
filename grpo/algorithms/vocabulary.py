"""Sums over a large vocabulary, W rows of the embedding table at a time, and their gradients.

    logprob_n = z_n[target] - log Σ_v exp z_nv      z = logits / T: distribution.py
    entropy_n = log Σ_v exp z_nv - Σ_v π_nv z_nv    π = softmax z

The sums are kept relative to the largest z so far, as attention keeps those over its keys
(arXiv:2205.14135). What the gradient needs is one more sum of the same walk,

    ∂ logprob_n / ∂ h_n = ∂ z_n[target] / ∂ h_n - Σ_v π_nv ∂ z_nv / ∂ h_n

a row of D numbers per token, whatever the loss makes of the log-probability. The gradient for the
table does depend on the loss: a second walk makes the tiles' logits again, and disappears from the
program where the table is frozen.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from grpo.algorithms.distribution import temper

Array = jax.Array


class Walk(NamedTuple):
    """How a vocabulary is walked, and what for."""

    unembed: Callable[[Array, Array], Array]  # (table [V, D], hidden [..., D]) -> logits [..., V]
    temperature: float
    tile: int  # rows of the table at a time: W
    shards: int  # parts in which the devices hold the table; each is walked where it is
    with_entropy: bool
    entropy_learns: bool  # the entropy has a gradient


class Sums(NamedTuple):
    """Sums over the vocabulary seen so far, all but the first times exp(-largest)."""

    largest_N: Array
    exp_N: Array  # Σ exp z
    z_exp_N: Array | None  # Σ z exp z
    slope_ND: Array | None  # Σ exp z ∂z/∂h
    z_slope_ND: Array | None  # Σ z exp z ∂z/∂h


def _walk(walk: Walk, table_VD: Array, h_ND: Array, slopes: bool) -> Sums:
    """The sums over all rows of a table, or of a shard of it."""
    V, W, N = table_VD.shape[0], walk.tile, h_ND.shape[0]
    zeros_N, zeros_ND = jnp.zeros(N, jnp.float32), jnp.zeros(h_ND.shape, jnp.float32)
    learns = slopes and walk.entropy_learns
    start = Sums(
        largest_N=jnp.full(N, -jnp.inf, jnp.float32),
        exp_N=zeros_N,
        z_exp_N=zeros_N if walk.with_entropy else None,
        slope_ND=zeros_ND if slopes else None,
        z_slope_ND=zeros_ND if learns else None,
    )

    def add(i: Array, sums: Sums) -> Sums:
        table_WD, _, is_new_W = tile_of(table_VD, W, i)

        def logits(h_ND: Array) -> Array:
            return temper(walk.unembed(table_WD, h_ND), walk.temperature)

        z_NW, pull = jax.vjp(logits, h_ND)
        if V % W:
            z_NW = jnp.where(is_new_W[None], z_NW, -jnp.inf)
        largest_N = jnp.maximum(sums.largest_N, jnp.max(z_NW, axis=1))
        exp_NW = jnp.exp(z_NW - largest_N[:, None])
        factor_N = jnp.exp(sums.largest_N - largest_N)
        factor_N1 = factor_N[:, None]
        z_exp_NW = jnp.where(exp_NW > 0, z_NW, 0.0) * exp_NW
        return Sums(
            largest_N=largest_N,
            exp_N=factor_N * sums.exp_N + jnp.sum(exp_NW, axis=1),
            z_exp_N=_then(sums.z_exp_N, factor_N, lambda: jnp.sum(z_exp_NW, axis=1)),
            slope_ND=_then(sums.slope_ND, factor_N1, lambda: pull(exp_NW)[0]),
            z_slope_ND=_then(sums.z_slope_ND, factor_N1, lambda: pull(z_exp_NW)[0]),
        )

    return jax.lax.fori_loop(0, -(-V // W), add, start)


def _then(total: Array | None, factor: Array, more: Callable[[], Array]) -> Array | None:
    """factor * total + more, in float32, where there is such a sum."""
    return None if total is None else factor * total + more().astype(jnp.float32)


def tile_of(table_VD: Array, W: int, i: Array) -> tuple[Array, Array, Array]:
    """Tile i of W rows, its first row, and which rows no tile before had: the last ends at V."""
    V = table_VD.shape[0]
    first = jnp.minimum(i * W, V - W)
    table_WD = jax.lax.dynamic_slice_in_dim(table_VD, first, W)
    return table_WD, first, first + jnp.arange(W) >= i * W


def _sums(walk: Walk, table_VD: Array, h_ND: Array, slopes: bool) -> Sums:
    """The sums over the vocabulary: those of the table's shards, put together."""
    if walk.shards == 1:
        return _walk(walk, table_VD, h_ND, slopes)
    (table_SVD,) = in_shards((table_VD,), walk.shards)
    sums_S = jax.vmap(lambda table_VD: _walk(walk, table_VD, h_ND, slopes))(table_SVD)
    largest_N = jnp.max(sums_S.largest_N, axis=0)
    factor_SN = jnp.exp(sums_S.largest_N - largest_N[None])

    def together(x: Array) -> Array:
        return jnp.sum(factor_SN.reshape(factor_SN.shape + (1,) * (x.ndim - 2)) * x, axis=0)

    return Sums(largest_N, *jax.tree.map(together, tuple(sums_S[1:])))


def log_totals(walk: Walk, table_VD: Array, h_ND: Array) -> Array:
    """log Σ_v exp z_nv."""
    sums = _sums(walk, table_VD, h_ND, slopes=False)
    return sums.largest_N + jnp.log(sums.exp_N)


def _of_target(walk: Walk, table_VD: Array, h_ND: Array, target_N: Array):
    """z_N of the targets."""

    def one(row_D: Array, h_D: Array) -> Array:
        return temper(walk.unembed(row_D[None], h_D[None]), walk.temperature)[0, 0]

    return jax.vmap(one)(table_VD[target_N], h_ND)


class Scores(NamedTuple):
    """Of the tokens of a block, or of M blocks."""

    logprob_N: Array
    entropy_N: Array | None


class Slopes(NamedTuple):
    """What the gradients of the scores are made of."""

    log_total_N: Array  # log Σ exp z
    logprob_ND: Array  # ∂ logprob / ∂ h
    entropy_ND: Array | None  # ∂ entropy / ∂ h, if it has a gradient


def _block(
    walk: Walk, table_VD: Array, h_ND: Array, target_N: Array, slopes: bool
) -> tuple[Scores, Slopes | None]:
    """The scores of a block of tokens, and their slopes if asked for."""
    z_N, pull = jax.vjp(lambda h: _of_target(walk, table_VD, h, target_N), h_ND)
    sums = _sums(walk, table_VD, h_ND, slopes)
    log_total_N = sums.largest_N + jnp.log(sums.exp_N)
    mean_N = None if sums.z_exp_N is None else sums.z_exp_N / sums.exp_N  # Σ π z
    scores = Scores(z_N - log_total_N, None if mean_N is None else log_total_N - mean_N)
    if sums.slope_ND is None:
        return scores, None
    mean_slope_ND = sums.slope_ND / sums.exp_N[:, None]  # Σ π ∂z/∂h
    found = Slopes(log_total_N, pull(jnp.ones_like(z_N))[0] - mean_slope_ND, None)
    if (
        mean_N is not None and sums.z_slope_ND is not None
    ):  # -∂/∂h Σ π log π = -Σ π (z - Σ π z) ∂z/∂h
        entropy_ND = mean_N[:, None] * mean_slope_ND - sums.z_slope_ND / sums.exp_N[:, None]
        found = found._replace(entropy_ND=entropy_ND)
    return scores, found


def over_blocks(one: Callable[[Array | int], Any], count: int, filled: Array) -> Any:
    """`one` of the first `filled` of so many blocks, and zeros for the others."""
    if count == 1:
        return jax.tree.map(lambda x: x[None], one(0))
    shapes = jax.eval_shape(one, 0)
    zeros = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shapes)

    def add(m: Array, found: Any) -> Any:
        return jax.tree.map(lambda x_M, x: x_M.at[m].set(x), found, one(m))

    return jax.lax.fori_loop(0, filled, add, zeros)


def _blocks(walk, table_VD, hidden_MND, target_MN, filled, slopes: bool):
    """`_block` of the blocks that are filled, and zeros for the others."""

    def one(m: Array | int) -> Any:
        return _block(walk, table_VD, hidden_MND[m], target_MN[m], slopes)

    return over_blocks(one, len(target_MN), filled)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scores(
    walk: Walk,
    table_VD: Array,
    hidden_MND: Array,
    target_MN: Array,
    filled: Array,
) -> Scores:
    """The scores of M blocks of N tokens; of blocks that are not filled they are 0."""
    return _blocks(walk, table_VD, hidden_MND, target_MN, filled, slopes=False)[0]


def _forward(walk, table_VD, hidden_MND, target_MN, filled):
    scores, slopes = _blocks(walk, table_VD, hidden_MND, target_MN, filled, slopes=True)
    return scores, (table_VD, hidden_MND, target_MN, filled, scores, slopes)


def _backward(walk: Walk, residuals: tuple, grads: Scores):
    """The gradients for the table and the hidden states, given those of the scores."""
    table_VD, hidden_MND, target_MN, filled, scores, slopes = residuals
    grad_MND = grads.logprob_N[..., None] * slopes.logprob_ND
    if grads.entropy_N is not None and slopes.entropy_ND is not None:
        grad_MND += grads.entropy_N[..., None] * slopes.entropy_ND
    else:
        grads = grads._replace(entropy_N=None)
    tokens = hidden_MND, target_MN, scores.entropy_N, slopes.log_total_N, grads

    def of_tile(tables: tuple[Array], row_W: Array, is_new_W: Array, m: Array | int) -> Array:
        h_ND, target_N, entropy_N, log_total_N, grads = jax.tree.map(lambda x: x[m], tokens)
        z_NW, pull = jax.vjp(
            lambda table_WD: temper(walk.unembed(table_WD, h_ND), walk.temperature), *tables
        )
        log_p_NW = z_NW - log_total_N[:, None]
        p_NW = jnp.exp(log_p_NW)
        grad_NW = grads.logprob_N[:, None] * ((row_W[None] == target_N[:, None]) - p_NW)
        if grads.entropy_N is not None:
            grad_NW -= grads.entropy_N[:, None] * p_NW * (log_p_NW + entropy_N[:, None])
        return pull(jnp.where(is_new_W[None], grad_NW, 0.0))[0]

    grad_VD = table_gradient(walk, (table_VD,), len(target_MN), filled, of_tile)
    return grad_VD.astype(table_VD.dtype), grad_MND.astype(hidden_MND.dtype), None, None


def table_gradient(
    walk: Walk, tables: tuple[Array, ...], count: int, filled: Array, of_tile: Callable[..., Array]
) -> Array:
    """Σ_n grad_n ∂ score_n / ∂ table of the first table, in float32, tile by tile.

    `of_tile` says what a block of tokens gives to a tile: (the tables' rows, their numbers, which
    of them no tile before had, the block) -> [W, D].
    """
    W, V = walk.tile, tables[0].shape[0] // walk.shards

    def of_shard(tables: tuple[Array, ...], shard: Array) -> Array:
        def add(i: Array, total_VD: Array) -> Array:
            parts = [tile_of(table_VD, W, i) for table_VD in tables]
            _, first, is_new_W = parts[0]
            tile, row_W = tuple(part[0] for part in parts), shard * V + first + jnp.arange(W)

            def add_block(m: Array | int, total_WD: Array) -> Array:
                return total_WD + of_tile(tile, row_W, is_new_W, m).astype(jnp.float32)

            more_WD = jnp.zeros(tile[0].shape, jnp.float32)
            if count == 1:
                more_WD = add_block(0, more_WD)
            else:
                more_WD = jax.lax.fori_loop(0, filled, add_block, more_WD)
            more_WD += jax.lax.dynamic_slice_in_dim(total_VD, first, W)
            return jax.lax.dynamic_update_slice_in_dim(total_VD, more_WD, first, axis=0)

        return jax.lax.fori_loop(0, -(-V // W), add, jnp.zeros(tables[0].shape, jnp.float32))

    grad_SVD = jax.vmap(of_shard)(in_shards(tables, walk.shards), jnp.arange(walk.shards))
    return rearrange(grad_SVD, "S V D -> (S V) D")


def in_shards(tables: tuple[Array, ...], shards: int) -> tuple[Array, ...]:
    """Tables as the devices hold them."""
    return tuple(rearrange(table_VD, "(S V) D -> S V D", S=shards) for table_VD in tables)


scores.defvjp(_forward, _backward)
