"""Masks as printed matrices; the two kernels against each other and against loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from models.attention import ATTENTION, einsum_attention, softcap, visible


def matrix(text: str) -> np.ndarray:
    return np.array([[c == "1" for c in line] for line in text.split()])


def test_global_layers_see_everything_before():
    position = jnp.arange(4)[None]
    want = matrix("1000 1100 1110 1111")
    np.testing.assert_array_equal(visible(position, position, None)[0], want)


def test_local_layers_see_exactly_the_window():
    position = jnp.arange(5)[None]
    want = matrix("10000 11000 11100 01110 00111")
    np.testing.assert_array_equal(visible(position, position, 3)[0], want)


def test_padding_sees_nothing_and_is_not_seen():
    position = jnp.array([[-1, 0, 1, -1, 2]])  # padded left and in the middle
    want = matrix("00000 01000 01100 00000 00101")
    np.testing.assert_array_equal(visible(position, position, 2)[0], want)


def test_packed_examples_do_not_see_each_other():
    position, segment = jnp.array([[0, 1, 0, 1, -1]]), jnp.array([[1, 1, 2, 2, 0]])
    want = matrix("10000 11000 00100 00110 00000")
    np.testing.assert_array_equal(visible(position, position, None, segment)[0], want)


def test_cached_keys_are_seen_by_position():
    # a ring that holds positions 3, 4, 2 and an empty slot
    want = matrix("1010 1100")
    got = visible(jnp.array([[3, 4]]), jnp.array([[3, 4, 2, -1]]), 2)[0]
    np.testing.assert_array_equal(got, want)


def test_softcap_by_hand():
    np.testing.assert_allclose(
        softcap(jnp.array([0.0, 50.0, 1e6]), 50.0), [0, 38.0797, 50], rtol=1e-5
    )


def inputs(dtype=jnp.float32, heads=4, kv_heads=2):
    random = np.random.RandomState(0)
    q = jnp.asarray(random.standard_normal((2, 6, heads, 8)), dtype)
    k = jnp.asarray(random.standard_normal((2, kv_heads, 8, 6)), dtype)
    v = jnp.asarray(random.standard_normal((2, kv_heads, 6, 8)), dtype)
    position = jnp.stack([jnp.arange(6), jnp.array([-1, -1, 0, 1, 2, 3])])
    return q, k, v, visible(position, position, 3)


def loop(q, k, v, seen, cap):
    """Attention head by head and query by query, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        kv = n // (q.shape[2] // k.shape[1])
        keys = np.flatnonzero(seen[b, t])
        if len(keys):
            score = q[b, t, n] @ k[b, kv][:, keys]
            score = cap * np.tanh(score / cap) if cap else score
            weight = np.exp(score - score.max())
            out[b, t, n] = weight / weight.sum() @ v[b, kv, keys]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("kernel", ATTENTION)
def test_kernels_against_loops(kernel, cap, kv_heads):
    q, k, v, seen = inputs(kv_heads=kv_heads)
    if kernel == "fused" and cap:
        with pytest.raises(ValueError, match="attention='einsum'"):
            ATTENTION[kernel](q, k, v, seen, cap)
        return
    got = np.asarray(ATTENTION[kernel](q, k, v, seen, cap))
    live = np.asarray(seen).any(-1)
    np.testing.assert_allclose(got[live], loop(q, k, v, seen, cap)[live], atol=1e-6)


@pytest.mark.parametrize("kernel", ATTENTION)
def test_large_scores_stay_finite(kernel):
    q, k, v, seen = inputs()
    live = np.asarray(seen).any(-1)
    got = np.asarray(ATTENTION[kernel](q * 1e3, k, v, seen, None))
    np.testing.assert_allclose(got[live], loop(q * 1e3, k, v, seen, None)[live], atol=1e-3)


def test_kernels_agree_in_value_and_gradient():
    q, k, v, seen = inputs()
    live = np.any(np.asarray(seen), axis=-1, keepdims=True)[..., None]
    weight = np.random.RandomState(1).standard_normal(q.shape) * live

    def score(name):
        def total(qkv):
            q, k, v = qkv
            return jnp.sum(ATTENTION[name](q, k, v, seen, None) * weight)

        return jax.value_and_grad(total)((q, k, v))

    (value, grads), (other, others) = score("einsum"), score("fused")
    np.testing.assert_allclose(value, other, rtol=1e-5)
    for a, b in zip(grads, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kernel", ATTENTION)
def test_a_row_that_sees_nothing_is_finite_and_so_are_its_gradients(kernel):
    q, k, v, seen = inputs()

    def total(qkv):
        q, k, v = qkv
        return jnp.sum(ATTENTION[kernel](q, k, v, jnp.zeros_like(seen), None) ** 2)

    value, grads = jax.value_and_grad(total)((q, k, v))
    assert all(np.isfinite(x).all() for x in (value, *grads))


def test_values_of_unseen_keys_do_not_matter():
    q, k, v, seen = inputs()
    hidden = ~np.any(np.asarray(seen), axis=1, keepdims=True)  # keys that no query sees
    assert hidden.any()
    other = jnp.where(rearrange(hidden, "B 1 S -> B 1 S 1"), 1e6, v)
    live = np.asarray(seen).any(-1)
    got = np.asarray(einsum_attention(q, k, other, seen, None))[live]
    np.testing.assert_array_equal(got, np.asarray(einsum_attention(q, k, v, seen, None))[live])


def test_bfloat16_softmax_is_float32():
    q, k, v, seen = inputs(jnp.bfloat16)
    graph = jax.make_jaxpr(lambda q, k, v: einsum_attention(q, k, v, seen, None))(q, k, v)
    exponentials = re.findall(r"(\w+)\[[\d,]*\] = exp", str(graph))
    assert exponentials == ["f32"]
    got, want = (
        np.asarray(einsum_attention(q, k, v, seen, None), np.float64),
        loop(q, k, v, seen, None),
    )
    assert np.abs(got - want)[np.asarray(seen).any(-1)].max() < 0.01  # a bfloat16 step at 2
