"""Which keys a query sees, and the kernels that attend to them.

A query at position q sees the key at position p of its own segment when

    0 <= q - p            in a global layer
    0 <= q - p < window   in a local layer: exactly `window` keys, itself included

Visibility is decided by positions, never by columns, so padding may stand anywhere in a row. A
padded query has position -1, sees nothing and yields some finite average; a padded or empty key has
position -1 and is unseen.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange

Array = jax.Array
# Finite, or a row that sees nothing becomes NaN; 0.7 leaves room for differences of two scores.
UNSEEN = -0.7 * float(jnp.finfo(jnp.float32).max)


def visible(
    position_BT: Array,
    key_position_BS: Array,
    window: int | None,
    segment_BT: Array | None = None,
) -> Array:
    """visible_BTS; with `segment_BT`, keys are the queries' own tokens and segments are apart."""
    distance_BTS = position_BT[:, :, None] - key_position_BS[:, None, :]
    visible_BTS = (distance_BTS >= 0) & (key_position_BS >= 0)[:, None, :]
    if window is not None:
        visible_BTS &= distance_BTS < window
    if segment_BT is not None:
        visible_BTS &= segment_BT[:, :, None] == segment_BT[:, None, :]
    return visible_BTS


def contract(equation: str, x: Array, y: Array) -> Array:
    """An einsum that accumulates and returns float32, whatever its operands' dtype.

    Its gradients are products of the operands' dtype too. Else the float32 gradient of the result
    would meet a short float: a product of two dtypes, for which XLA has no fast way (on CPUs with
    bfloat16 an update took more than twenty times as long).
    """
    return _contract(equation, x, y)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _contract(equation: str, x: Array, y: Array) -> Array:
    return _product(equation, x, y)


def _forward(equation: str, x: Array, y: Array):
    return _contract(equation, x, y), (x, y)


def _backward(equation: str, operands: tuple[Array, Array], grad: Array):
    (x, y), (of_x, of_y, of_out) = operands, equation.replace("->", ",").split(",")
    grad_x = _product(f"{of_out},{of_y}->{of_x}", grad.astype(y.dtype), y)

    def plain(grad: Array, x: Array) -> Array:
        return _product(f"{of_out},{of_x}->{of_y}", grad, x)

    def flipped(grad: Array, x: Array) -> Array:
        flipped_grad = _product(f"{of_out},{of_x}->{of_y[::-1]}", grad, x)
        return jax.lax.optimization_barrier(flipped_grad).T

    rows = grad.astype(x.dtype), x
    if y.ndim == 2 and y.shape[0] > y.shape[1]:
        # XLA's CPU product copies the side whose rows it sums over, if that is the left one: it
        # should be the smaller; for a table the hidden states, not the gradients of all logits.
        grad_y = jax.lax.platform_dependent(*rows, cpu=flipped, default=plain)
    else:
        grad_y = plain(*rows)
    return grad_x.astype(x.dtype), grad_y.astype(y.dtype)


_contract.defvjp(_forward, _backward)


def softcap(x: Array, cap: float | None) -> Array:
    """cap * tanh(x / cap): the identity near zero, never beyond ±cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def einsum_attention(
    q_BTNH: Array, k_BKHS: Array, v_BKSH: Array, visible_BTS: Array, cap: float | None
) -> Array:
    """softmax(mask(softcap(q·k))) v in plain einsums; query head n reads key head n // Q.

        out = Σ_s exp(z_s - max z) v_s / Σ_s exp(z_s - max z)

    Divided after the sum over s, and masked by a sum: so the backward pass has the fewest arrays of
    T x S. Heads go in front, one matrix product for each, and the keys come as the right side of
    theirs, of which CPUs would otherwise make a copy at every token.
    """
    q_BKTQH = rearrange(q_BTNH, "B T (K Q) H -> B K T Q H", K=k_BKHS.shape[1])
    score_BKTQS = softcap(contract("BKTQH,BKHS->BKTQS", q_BKTQH, k_BKHS), cap)
    score_BKTQS += unseen(visible_BTS)
    (weight_BKTQS,), total_BKTQ1 = weights(score_BKTQS)
    out_BKTQH = contract("BKTQS,BKSH->BKTQH", weight_BKTQS.astype(q_BTNH.dtype), v_BKSH)
    return rearrange(out_BKTQH / total_BKTQ1, "B K T Q H -> B T (K Q) H").astype(q_BTNH.dtype)


def unseen(visible_BTS: Array) -> Array:
    """What is added to a score: nothing where the key is visible."""
    return jnp.where(visible_BTS, 0.0, UNSEEN)[:, None, :, None, :]


def weights(*scores: Array) -> tuple[list[Array], Array]:
    """exp(z - max z) over all keys, which may stand in several arrays, and the sum of them all."""
    largest = functools.reduce(jnp.maximum, (jnp.max(z, axis=-1, keepdims=True) for z in scores))
    # The result does not depend on what is subtracted, so no gradient goes through it.
    weight = [jnp.exp(z - jax.lax.stop_gradient(largest)) for z in scores]
    return weight, functools.reduce(jnp.add, (jnp.sum(w, axis=-1, keepdims=True) for w in weight))


def fused_attention(
    q_BTNH: Array, k_BKHS: Array, v_BKSH: Array, visible_BTS: Array, cap: float | None
) -> Array:
    """The same through `jax.nn.dot_product_attention`, which on CPUs is unfused einsums as well."""
    if cap is not None:
        raise ValueError("attention='fused' cannot soft-cap its scores: use attention='einsum'")
    k_BSKH = rearrange(k_BKHS, "B K H S -> B S K H")
    v_BSKH = rearrange(v_BKSH, "B K S H -> B S K H")
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=visible_BTS[:, None, :, :], scale=1.0
    )


ATTENTION = {"einsum": einsum_attention, "fused": fused_attention}
