"""The whole tower: against a float64 oracle, and against itself where two ways must agree."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.cache import init_cache
from models.config import GLOBAL, LOCAL, SIZES
from models.gemma import REMAT, Embedder, Gemma, param_shapes, row_positions, unembed, unstack
from tests import oracle
from tests.helpers import TINY, TINY3, logits_of, tiny_ids, tiny_params

FAMILIES = ["gemma3", "gemma2"]
LENGTH = 20  # past two windows of 8


@functools.cache
def oracle_logits(family: str, length: int = LENGTH) -> np.ndarray:
    return oracle.logits(TINY[family], tiny_params(family), tiny_ids(1, length)[0])


@functools.cache
def run(family: str, **options):
    """A jitted (ids, mask) -> logits."""
    module = Gemma(TINY[family], **options)
    return lambda ids, mask: np.asarray(
        logits_of(module, {"params": tiny_params(family)}, jnp.asarray(ids), jnp.asarray(mask))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_against_the_oracle(family):
    ids = tiny_ids(1, LENGTH)
    want = oracle_logits(family)
    assert np.abs(want).max() > 3
    np.testing.assert_allclose(run(family)(ids, np.ones_like(ids))[0], want, atol=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_anywhere_changes_nothing(family):
    ids, total = tiny_ids(1, LENGTH)[0], LENGTH + 12
    places = {  # where the row's tokens stand among the padding
        "left": np.arange(12, total),
        "right": np.arange(LENGTH),
        "both": np.arange(5, 5 + LENGTH),
        "inside": np.r_[0:7, 16 : 16 + LENGTH - 7],
    }
    rows, mask = np.zeros((5, total), np.int32), np.zeros((5, total), np.int32)
    for row, where in enumerate(places.values()):
        rows[row, where], mask[row, where] = ids, 1
    rows[:, :] = np.where(mask, rows, 7)  # padding may be any token; the last row is all padding
    got = run(family)(rows, mask)
    assert np.isfinite(got).all()
    for row, where in enumerate(places.values()):
        np.testing.assert_allclose(got[row, where], oracle_logits(family), atol=5e-5)


def test_a_row_of_padding_has_finite_gradients_and_gives_none():
    ids = tiny_ids(2, 9)
    mask = np.array([[1] * 9, [0] * 9])

    def loss(params, ids, mask):
        hidden_BTD, _ = Gemma(TINY3).apply({"params": params}, ids, mask)
        logits_BTV = unembed(TINY3, params, hidden_BTD)
        return jnp.sum(jax.nn.log_softmax(logits_BTV)[:, :, 5] * mask)

    grad = jax.jit(jax.grad(loss))
    both = grad(tiny_params("gemma3"), ids, mask)
    alone = grad(tiny_params("gemma3"), ids[:1], mask[:1])
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_batch_order_does_not_matter():
    ids = tiny_ids(3, LENGTH)
    mask = np.ones_like(ids)
    mask[1, :4] = 0
    got, order = run("gemma3")(ids, mask), [2, 0, 1]
    np.testing.assert_allclose(run("gemma3")(ids[order], mask[order]), got[order], atol=1e-5)


def test_row_positions():
    mask = jnp.array(
        [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 1], [1, 1, 2, 2, 0], [1, 0, 2, 0, 3]]
    )
    want = [
        [0, 1, 2, 3, 4],
        [-1, -1, 0, 1, 2],
        [0, 1, -1, -1, 2],
        [0, 1, 0, 1, -1],
        [0, -1, 0, -1, 0],
    ]
    np.testing.assert_array_equal(row_positions(mask), want)


def test_packed_examples_are_as_if_apart():
    ids = tiny_ids(1, 21)
    packed = run("gemma3")(ids, np.array([[1] * 9 + [0] * 2 + [2] * 10]))
    for part in (slice(0, 9), slice(11, 21)):
        alone = run("gemma3")(ids[:, part], np.ones_like(ids[:, part]))
        np.testing.assert_allclose(packed[:, part], alone, atol=2e-5)


@pytest.mark.parametrize("kind", [LOCAL, GLOBAL])
def test_a_layers_reach(kind):
    """Token t sees t - window + 1 but not t - window in a local layer, and all in a global one."""
    config = dataclasses.replace(TINY3, num_layers=1, kinds=(kind,))
    params = jax.tree.map(lambda x: x, tiny_params("gemma3"))
    params["layers"] = jax.tree.map(lambda x: x[:1], params["layers"])
    forward = functools.partial(logits_of, Gemma(config), {"params": params})
    ids, mask, last = tiny_ids(1, LENGTH), np.ones((1, LENGTH), np.int32), LENGTH - 1
    before = np.asarray(forward(ids, mask))[0, last]
    for back, seen in ((config.window - 1, True), (config.window, kind == GLOBAL)):
        other = ids.copy()
        other[0, last - back] = (other[0, last - back] + 1) % 96
        after = np.asarray(forward(other, mask))[0, last]
        assert np.array_equal(before, after) != seen


@pytest.mark.parametrize("family", FAMILIES)
def test_scan_equals_loop(family):
    ids = tiny_ids(2, LENGTH)
    loop = logits_of(
        Gemma(TINY[family]), {"params": unstack(tiny_params(family))}, ids, np.ones_like(ids)
    )
    np.testing.assert_allclose(run(family)(ids, np.ones_like(ids)), loop, atol=1e-5)


def test_remat_changes_nothing():
    ids = jnp.asarray(tiny_ids(2, 9))

    @functools.partial(jax.jit, static_argnames="remat")
    def step(params, remat):
        def loss(params):
            module = Gemma(TINY3, remat=remat)
            hidden_BTD, _ = module.apply({"params": params}, ids, jnp.ones_like(ids))
            return jnp.sum(jnp.sin(unembed(TINY3, params, hidden_BTD)))

        return jax.value_and_grad(loss)(params)

    value, grads = step(tiny_params("gemma3"), "none")
    for remat in set(REMAT) - {"none"}:
        other, others = step(tiny_params("gemma3"), remat)
        np.testing.assert_allclose(other, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())


def test_unrolled_depth_has_no_loop():
    ids = tiny_ids(2, 9)

    def apply(unroll):
        return functools.partial(
            Gemma(TINY3, unroll=unroll).apply, {"params": tiny_params("gemma3")}
        )

    scan, loop = apply(1), apply(TINY3.num_layers)
    for function, loops in ((scan, 1), (loop, 0)):
        text = jax.jit(function).lower(ids, np.ones_like(ids)).as_text()
        assert text.count("stablehlo.while") == loops
    np.testing.assert_allclose(
        jax.jit(loop)(ids, np.ones_like(ids))[0],
        jax.jit(scan)(ids, np.ones_like(ids))[0],
        atol=1e-5,
    )


def test_remat_is_in_the_graph():
    ids = jnp.zeros((1, 4), jnp.int32)

    def graph(remat):
        module = Gemma(TINY3, remat=remat)
        variables = {"params": param_shapes(TINY3)}
        return str(jax.make_jaxpr(module.apply)(variables, ids, jnp.ones_like(ids)))

    assert "remat" not in graph("none")
    assert "policy=None" in graph("full")
    assert "remat" in graph("dots") and "policy=None" not in graph("dots")


def test_fused_attention_gives_the_same_model():
    ids = tiny_ids(2, LENGTH)
    mask = np.ones_like(ids)
    mask[0, :5] = 0
    got = run("gemma3", attention="fused")(ids, mask)
    np.testing.assert_allclose(got[mask == 1], run("gemma3")(ids, mask)[mask == 1], atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_near_the_oracle(family):
    params, ids = tiny_params(family, "bfloat16"), tiny_ids(1, LENGTH)
    module = Gemma(TINY[family], jnp.bfloat16, jnp.bfloat16)
    got = logits_of(module, {"params": params}, ids, np.ones_like(ids))
    want = oracle.logits(TINY[family], params, ids[0])
    assert got.dtype == jnp.float32
    gap = np.abs(np.asarray(got)[0] - want)
    assert gap.mean() < 0.02 * np.abs(want).mean() + 0.01
    assert gap.max() < 0.3


def test_float32_weights_may_compute_in_bfloat16():
    ids = tiny_ids(1, LENGTH)
    module = Gemma(TINY3, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    params = tiny_params("gemma3")
    hidden_BTD, _ = jax.eval_shape(module.apply, {"params": params}, ids, np.ones_like(ids))
    assert hidden_BTD.dtype == jnp.bfloat16


ROUNDED = {640: 25.25, 1152: 34.0, 2304: 48.0, 2560: 50.5, 3584: 59.75, 3840: 62.0, 5376: 73.5}


@pytest.mark.parametrize("width", ROUNDED)
def test_embedding_scale_is_rounded_to_the_weights(width):
    config = dataclasses.replace(TINY3, width=width, vocab_size=2)

    def scale(dtype):
        table = {"params": {"table": jnp.ones((2, width), dtype)}}
        embedded: Any = Embedder(config, dtype, dtype).apply(table, jnp.array([[1]]))
        return float(embedded[0, 0, 0])

    assert scale(jnp.bfloat16) == ROUNDED[width]
    assert scale(jnp.float32) == np.float32(width**0.5)


def test_tied_embedding_gets_both_gradients():
    params, ids = tiny_params("gemma3"), jnp.asarray(tiny_ids(1, 7))

    def loss(table_in, table_out):
        inside = {**params, "embedder": {"table": table_in}}
        hidden_BTD, _ = Gemma(TINY3).apply({"params": inside}, ids, jnp.ones_like(ids))
        outside = {**params, "embedder": {"table": table_out}}
        return jnp.mean(jax.nn.log_softmax(unembed(TINY3, outside, hidden_BTD))[:, :, 3])

    table = params["embedder"]["table"]
    tied = jax.jit(jax.grad(lambda t: loss(t, t)))(table)
    inner, outer = jax.jit(jax.grad(loss, argnums=(0, 1)))(table, table)
    assert min(np.abs(inner).max(), np.abs(outer).max()) > 1e-4
    np.testing.assert_allclose(tied, inner + outer, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_traces_in_seconds(size):
    """A train step's gradient and a decode step, at the real shapes in bfloat16."""
    config, began = SIZES[size], time.monotonic()
    params = param_shapes(config, jnp.bfloat16)
    module = Gemma(config, jnp.bfloat16, jnp.bfloat16, remat="full")
    ids = jax.ShapeDtypeStruct((4, 512), jnp.int32)

    def loss(params, ids):
        hidden_BTD, _ = module.apply({"params": params}, ids, jnp.ones_like(ids))
        return jnp.mean(unembed(config, params, hidden_BTD[:, :1]))

    def decode(params, ids, cache):
        hidden_BTD, cache = module.apply({"params": params}, ids, jnp.ones_like(ids), cache)
        return unembed(config, params, hidden_BTD), cache

    grads = jax.eval_shape(jax.grad(loss), params, ids)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    cache = jax.eval_shape(lambda: init_cache(config, 4, 1024, jnp.bfloat16))
    one = jax.ShapeDtypeStruct((4, 1), jnp.int32)
    logits, after = jax.eval_shape(decode, params, one, cache)
    assert logits.shape == (4, 1, config.vocab_size)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, cache)
    assert time.monotonic() - began < 10
