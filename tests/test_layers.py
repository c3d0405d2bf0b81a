"""The pieces of a layer, on numbers worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.gemma import Gemma, param_shapes, unembed
from models.layers import MLP, Linear, RMSNorm, rope, rope_angles, rotation
from tests.helpers import TINY3


def apply(module, params, x) -> Any:
    return module.apply({"params": params}, jnp.asarray(x))


def test_rmsnorm_by_hand():
    # mean(3², 4²) = 12.5; 3/√12.5 · (1 + 0), 4/√12.5 · (1 + 1)
    got = apply(RMSNorm(0.0, jnp.float32), {"scale": jnp.array([0.0, 1.0])}, [[3.0, 4.0]])
    np.testing.assert_allclose(got, [[0.8485281, 2.2627417]], rtol=1e-6)


def test_rmsnorm_eps_is_inside_the_root():
    got = apply(RMSNorm(1e-6, jnp.float32), {"scale": jnp.zeros(1)}, [[1e-3]])
    np.testing.assert_allclose(got, [[1e-3 / np.sqrt(2e-6)]], rtol=1e-5)


def test_rmsnorm_of_bfloat16_is_float32_inside():
    x = np.random.RandomState(0).standard_normal((5, 64)).astype(jnp.bfloat16)
    scale = np.random.RandomState(1).standard_normal(64).astype(jnp.bfloat16)
    got = apply(RMSNorm(1e-6, jnp.bfloat16), {"scale": jnp.asarray(scale)}, x)
    x64 = x.astype(np.float64)
    want = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-6) * (1 + scale.astype(np.float64))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(got), want.astype(jnp.bfloat16))


def test_rope_by_hand():
    # theta 100, H 4: plane 0 turns (1, 3) by 1 rad, plane 1 turns (2, 4) by 0.1 rad
    angle = rope_angles(jnp.array([[1]]), 4, 100.0, 1.0)
    np.testing.assert_allclose(angle[0, 0], [1.0, 0.1], rtol=1e-6)
    got = rope(jnp.array([[[[1.0, 2.0, 3.0, 4.0]]]]), rotation(angle))[0, 0, 0]
    c1, s1, c2, s2 = np.cos(1), np.sin(1), np.cos(0.1), np.sin(0.1)
    want = [c1 - 3 * s1, 2 * c2 - 4 * s2, 3 * c1 + s1, 4 * c2 + 2 * s2]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_rope_scaling_divides_positions():
    scaled = rope_angles(jnp.array([[8, 16]]), 6, 1e6, 8.0)
    np.testing.assert_allclose(scaled, rope_angles(jnp.array([[1, 2]]), 6, 1e6, 1.0), rtol=1e-6)


def test_rope_depends_on_distance_alone():
    q, k = np.random.RandomState(0).standard_normal((2, 1, 1, 1, 8))

    def score(t, s):
        turned = [
            rope(jnp.asarray(x), rotation(rope_angles(jnp.array([[position]]), 8, 1e4, 1.0)))
            for x, position in ((q, t), (k, s))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert abs(score(9, 4) - score(4, 9)) > 1e-2


def test_mlp_is_tanh_gelu_of_the_gate_times_up():
    one = {name: {"w": jnp.zeros(shape)} for name, shape in
           {"gate": (48, 80), "up": (48, 80), "down": (80, 48)}.items()}  # fmt: skip
    one["gate"]["w"] = one["gate"]["w"].at[0, 0].set(1.0)
    one["up"]["w"] = one["up"]["w"].at[1, 0].set(1.0)
    one["down"]["w"] = one["down"]["w"].at[0, 2].set(1.0)
    x = np.zeros((1, 1, 48), np.float32)
    x[..., 0], x[..., 1] = 1.0, 3.0
    got = apply(MLP(TINY3, jnp.float32, 0.0), one, x)
    # 0.5 · (1 + tanh(√(2/π) · 1.044715)) = 0.8411920; the exact GELU would give 0.8413447
    assert float(got[0, 0, 2]) == pytest.approx(3 * 0.8411920, abs=1e-6)


def test_linear_contracts_all_input_axes():
    w = np.random.RandomState(0).standard_normal((2, 3, 5)).astype(np.float32)
    x = np.random.RandomState(1).standard_normal((1, 4, 2, 3)).astype(np.float32)
    got = apply(Linear((2, 3, 5), jnp.float32, 0.0, num_inputs=2), {"w": jnp.asarray(w)}, x)
    np.testing.assert_allclose(got, np.einsum("btnh,nhd->btd", x, w), rtol=1e-5)


def test_every_contraction_of_a_bfloat16_model_accumulates_in_float32():
    def dots(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", None)
                if inner is not None:
                    yield from dots(getattr(inner, "jaxpr", inner))

    module = Gemma(TINY3, jnp.bfloat16, jnp.bfloat16, remat="none")

    def forward(params, ids):
        return unembed(TINY3, params, module.apply({"params": params}, ids, jnp.ones_like(ids))[0])

    ids = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    found = list(dots(jax.make_jaxpr(forward)(param_shapes(TINY3, jnp.bfloat16), ids).jaxpr))
    assert len(found) == 7 + 2 + 1  # projections, scores and averages, logits
    for equation in found:
        assert {v.aval.dtype for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}
        assert equation.outvars[0].aval.dtype == jnp.float32
