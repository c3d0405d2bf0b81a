"""How far a student's next-token distribution is from a teacher's, over a whole vocabulary.

    D_β = β KL(t ‖ m) + (1 - β) KL(p ‖ m)    m = (1 - β) p + β t    0 < β < 1
    D_0 = KL(t ‖ p)    D_1 = KL(p ‖ t)       p: student, t: teacher

the generalised Jensen-Shannon divergence of arXiv:2306.13649. As there, D_0 and D_1 are not its
limits, which are 0, but those of D_β / β and D_β / (1 - β).

Where the logits of all positions fit they are made (`divergence`). Elsewhere the two vocabularies
are walked side by side, W rows of each table at a time (`scores` of vocabulary.py is the same for
log-probabilities): once for Σ exp z of both, and once for

    D = Σ_v d_v        ∂D/∂h = Σ_v p_v (g_v - ḡ) ∂z_v/∂h        g = ∂D/∂p,  ḡ = Σ_v p_v g_v

with g = (1 - β) log(p/m), -t/p, or log(p/t). Nothing is differentiated for the teacher. The
gradient for the student's table is a third walk, and gone where that table is frozen.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms.distribution import temper
from grpo.algorithms.logprobs import AT_ONCE, BLOCK, Unembed, of_those_that_count, tile_width
from grpo.algorithms.vocabulary import (
    Walk,
    in_shards,
    log_totals,
    over_blocks,
    table_gradient,
    tile_of,
)

Array = jax.Array


def summands(beta: float, log_p: Array, log_t: Array) -> tuple[Array, Array]:
    """d_v and p_v g_v, the summands of D_β and of ḡ, given log p_v and log t_v."""
    p, t = jnp.exp(log_p), jnp.exp(log_t)
    if beta == 0:
        return t * (log_t - log_p), -t
    if beta == 1:
        gap = p * (log_p - log_t)
        return gap, gap
    log_m = jnp.logaddexp(math.log1p(-beta) + log_p, math.log(beta) + log_t)
    own = (1 - beta) * p * (log_p - log_m)
    return beta * t * (log_t - log_m) + own, own


def divergence(beta: float, z: Array, teacher_z: Array) -> Array:
    """D_β over the last axis of logits; differentiable in the student's."""
    log_p = jax.nn.log_softmax(z, axis=-1)
    log_t = jax.lax.stop_gradient(jax.nn.log_softmax(teacher_z, axis=-1))
    return jnp.sum(summands(beta, log_p, log_t)[0], axis=-1)


class Pair(NamedTuple):
    """How two vocabularies are walked side by side; tile and shards are the same."""

    student: Walk
    teacher: Walk
    beta: float


class Slopes(NamedTuple):
    """What the gradients are made of, per token."""

    log_total_N: Array  # log Σ exp z
    teacher_log_total_N: Array
    mean_N: Array  # ḡ
    divergence_ND: Array  # ∂D / ∂h


def _tile(pair: Pair, tables: tuple[Array, ...], h_ND: Array, teacher_ND: Array, totals: tuple):
    """log p, log t and the pullback of z to h, of a tile."""

    def logits(h_ND: Array) -> Array:
        return temper(pair.student.unembed(tables[0], h_ND), pair.student.temperature)

    z_NW, pull = jax.vjp(logits, h_ND)
    teacher_NW = temper(pair.teacher.unembed(tables[1], teacher_ND), pair.teacher.temperature)
    return z_NW - totals[0][:, None], teacher_NW - totals[1][:, None], pull


def _block(
    pair: Pair, tables: tuple[Array, ...], h_ND: Array, teacher_ND: Array, slopes: bool
) -> tuple[Array, Slopes | None]:
    """D of a block of tokens, and the slopes if asked for."""
    W, N = pair.student.tile, h_ND.shape[0]
    totals = tuple(
        log_totals(walk, table_VD, x_ND)
        for walk, table_VD, x_ND in zip(pair[:2], tables, (h_ND, teacher_ND), strict=True)
    )
    zeros_N, zeros_ND = jnp.zeros(N, jnp.float32), jnp.zeros(h_ND.shape, jnp.float32)
    start = (zeros_N, zeros_N, zeros_ND, zeros_ND) if slopes else (zeros_N,)

    def of_shard(tables: tuple[Array, ...]) -> tuple[Array, ...]:
        def add(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            parts = [tile_of(table_VD, W, i) for table_VD in tables]
            is_new_W, tile = parts[0][2], tuple(part[0] for part in parts)
            log_p_NW, log_t_NW, pull = _tile(pair, tile, h_ND, teacher_ND, totals)
            d_NW, own_NW = summands(pair.beta, log_p_NW, log_t_NW)
            d_NW, own_NW, p_NW = (
                jnp.where(is_new_W[None], x_NW, 0.0) for x_NW in (d_NW, own_NW, jnp.exp(log_p_NW))
            )
            more = [jnp.sum(d_NW, axis=1)]
            if slopes:
                more += [jnp.sum(own_NW, axis=1), pull(own_NW)[0], pull(p_NW)[0]]
            return tuple(a + b.astype(jnp.float32) for a, b in zip(sums, more, strict=True))

        return jax.lax.fori_loop(0, -(-tables[0].shape[0] // W), add, start)

    sums_S = jax.vmap(of_shard)(in_shards(tables, pair.student.shards))
    total_N, *rest = (jnp.sum(x, axis=0) for x in sums_S)
    if not slopes:
        return total_N, None
    mean_N, own_ND, p_ND = rest
    log_total_N, teacher_log_total_N = totals
    slope_ND = own_ND - mean_N[:, None] * p_ND
    return total_N, Slopes(log_total_N, teacher_log_total_N, mean_N, slope_ND)


def _blocks(pair: Pair, tables: tuple[Array, ...], hidden_MND, teacher_MND, filled, slopes: bool):
    """`_block` of the blocks that are filled, and zeros for the others."""

    def one(m: Array | int) -> Any:
        return _block(pair, tables, hidden_MND[m], teacher_MND[m], slopes)

    return over_blocks(one, len(hidden_MND), filled)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def divergences(
    pair: Pair,
    table_VD: Array,
    teacher_VD: Array,
    hidden_MND: Array,
    teacher_MND: Array,
    filled: Array,
) -> Array:
    """D_MN of M blocks of N tokens; of blocks that are not filled it is 0."""
    tables = table_VD, teacher_VD
    return _blocks(pair, tables, hidden_MND, teacher_MND, filled, slopes=False)[0]


def _forward(pair, table_VD, teacher_VD, hidden_MND, teacher_MND, filled):
    tables = table_VD, teacher_VD
    found, slopes = _blocks(pair, tables, hidden_MND, teacher_MND, filled, slopes=True)
    return found, (tables, hidden_MND, teacher_MND, filled, slopes)


def _backward(pair: Pair, residuals: tuple, grad_MN: Array):
    """The gradients for the student's table and hidden states; the teacher has none."""
    tables, hidden_MND, teacher_MND, filled, slopes = residuals
    tokens = hidden_MND, teacher_MND, slopes, grad_MN

    def of_tile(tile: tuple[Array, ...], row_W: Array, is_new_W: Array, m: Array | int) -> Array:
        h_ND, teacher_ND, of, grad_N = jax.tree.map(lambda x: x[m], tokens)
        totals = of.log_total_N, of.teacher_log_total_N
        log_p_NW, log_t_NW, _ = _tile(pair, tile, h_ND, teacher_ND, totals)
        own_NW = summands(pair.beta, log_p_NW, log_t_NW)[1]
        grad_NW = grad_N[:, None] * (own_NW - of.mean_N[:, None] * jnp.exp(log_p_NW))
        walk = pair.student
        _, pull = jax.vjp(lambda x_WD: temper(walk.unembed(x_WD, h_ND), walk.temperature), tile[0])
        return pull(jnp.where(is_new_W[None], grad_NW, 0.0))[0]

    grad_VD = table_gradient(pair.student, tables, len(grad_MN), filled, of_tile)
    grad_MND = grad_MN[..., None] * slopes.divergence_ND
    return grad_VD.astype(tables[0].dtype), None, grad_MND.astype(hidden_MND.dtype), None, None


divergences.defvjp(_forward, _backward)


def token_divergence(
    unembed: Unembed,
    teacher_unembed: Unembed,
    tables: tuple[Array, Array],
    hidden_BCD: Array,
    teacher_BCD: Array,
    mask_BC: Array | None = None,
    *,
    beta: float,
    temperature: float,
    at_once: int = AT_ONCE,
    tile: int | None = None,
    block: int = BLOCK,
    row_parts: int = 1,
    table_parts: int = 1,
) -> Array:
    """D_BC of hidden states, differentiable in the student's and in its table.

    Both tables have the same V rows. `mask_BC` and what follows are as in `token_logprobs`.
    """
    (B, C), V = hidden_BCD.shape[:2], tables[0].shape[0]
    if at_once * row_parts * table_parts >= 2 * B * C * V:
        z_BCV = temper(unembed(tables[0], hidden_BCD), temperature)
        teacher_BCV = temper(teacher_unembed(tables[1], teacher_BCD), temperature)
        return divergence(beta, z_BCV, teacher_BCV)

    def pair(count: int) -> Pair:
        """For so many tokens at a time on a device."""
        width = min(tile or tile_width(2 * count, V), V // table_parts)
        student, teacher = (
            Walk(of, temperature, width, table_parts, False, False)
            for of in (unembed, teacher_unembed)
        )
        return Pair(student, teacher, beta)

    tokens = [x_BCD.reshape(B * C, -1) for x_BCD in (hidden_BCD, teacher_BCD)]
    if mask_BC is None or row_parts * table_parts > 1:
        one_block = [x[None] for x in tokens]
        found: Any = divergences(pair(B * C // row_parts), *tables, *one_block, jnp.int32(1))
        return found.reshape(B, C)
    of_blocks = functools.partial(divergences, pair(block), *tables)
    return of_those_that_count(of_blocks, tokens, mask_BC, block)
