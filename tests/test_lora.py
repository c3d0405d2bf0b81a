"""Adapters: neutral when fresh, equal to their merge, apart from the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.gemma import Gemma, param_shapes, unembed, unstack
from models.lora import TARGETS, LoraConfig, init_adapter, merge
from models.policy import Policy
from tests.helpers import TINY, TINY3, assert_trees_equal, logits_of, tiny_ids, tiny_params

LORA = LoraConfig(rank=3, alpha=6)
IDS = tiny_ids(2, 11)


def drawn(lora: LoraConfig, family="gemma3", dtype=jnp.float32):
    """An adapter whose b is not zero."""
    fresh = init_adapter(lora, tiny_params(family), jax.random.key(0), dtype)
    random = np.random.RandomState(3)
    return jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape) * 0.2, dtype), fresh)


def logits(family, params, adapter=None, scale=0.0, dtype=jnp.float32):
    variables = {"params": params} | ({} if adapter is None else {"lora": adapter})
    module = Gemma(TINY[family], dtype, dtype, scale)
    return np.asarray(logits_of(module, variables, IDS, np.ones_like(IDS)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", TINY)
def test_a_fresh_adapter_changes_no_bit(family, dtype):
    params = tiny_params(family, dtype)
    fresh = init_adapter(LORA, params, jax.random.key(0))
    assert all(np.any(np.asarray(x)) for path, x in jax.tree_util.tree_leaves_with_path(fresh)
               if path[-1].key == "a")  # fmt: skip
    adapted = logits(family, params, fresh, LORA.scale, jnp.dtype(dtype))
    np.testing.assert_array_equal(adapted, logits(family, params, dtype=jnp.dtype(dtype)))


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("lora", [LORA, LoraConfig(rank=4, alpha=3, rslora=True, targets="q|down")])
def test_merged_equals_adapted(family, lora):
    params, adapter = tiny_params(family), drawn(lora, family)
    adapted = logits(family, params, adapter, lora.scale)
    merged = logits(family, merge(params, adapter, lora.scale))
    assert np.abs(adapted - logits(family, params)).max() > 0.1
    np.testing.assert_allclose(adapted, merged, atol=5e-5)  # logits of size 10


@pytest.mark.parametrize("name", TARGETS)
def test_merge_adds_scale_times_a_b(name):
    lora = LoraConfig(rank=2, alpha=5, targets=name)
    params, adapter = tiny_params("gemma3"), drawn(lora)
    part, leaf = TARGETS[name]
    w, ab = params["layers"][part][leaf]["w"], adapter["layers"][part][leaf]
    got = merge(params, adapter, lora.scale)["layers"][part][leaf]["w"]
    equation = "lnhr,lrd->lnhd" if name == "o" else "ldr,lr...->ld..."
    want = np.asarray(w, np.float64) + 2.5 * np.einsum(
        equation, np.asarray(ab["a"], np.float64), np.asarray(ab["b"], np.float64)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_merging_leaves_its_inputs_alone_and_repeats_exactly():
    params, adapter = tiny_params("gemma3", "bfloat16"), drawn(LORA)
    kept = jax.tree.map(np.array, params)
    once, again = merge(params, adapter, LORA.scale), merge(params, adapter, LORA.scale)
    assert_trees_equal(params, kept)
    assert_trees_equal(once, again)
    assert once["embedder"]["table"] is params["embedder"]["table"]  # no second copy


def test_the_reference_is_the_same_arrays_without_the_adapter():
    model = Policy(config=TINY3, params=tiny_params("gemma3"), lora=LORA, adapter=drawn(LORA))
    assert model.base().params is model.params
    assert "lora" not in model.base().variables and "lora" in model.variables


def test_targets_by_regex():
    assert LoraConfig(rank=1, alpha=1, targets="q|v|down").names == ("q", "v", "down")
    assert LoraConfig(rank=1, alpha=1).names == tuple(TARGETS)
    assert LoraConfig(rank=1, alpha=1, targets="[qkvo]").names == ("q", "k", "v", "o")
    adapter = init_adapter(
        LoraConfig(rank=1, alpha=1, targets="k|gate"), param_shapes(TINY3), jax.random.key(0)
    )
    assert {(part, leaf) for part, leaves in adapter["layers"].items() for leaf in leaves} == {
        ("attention", "k"),
        ("mlp", "gate"),
    }
    with pytest.raises(ValueError, match="'query' matches none of q, k, v, o, gate, up, down"):
        LoraConfig(rank=1, alpha=1, targets="query")
    with pytest.raises(ValueError, match="rank=0"):
        LoraConfig(rank=0, alpha=1)


def test_scale():
    assert LoraConfig(rank=64, alpha=32).scale == 0.5
    assert LoraConfig(rank=64, alpha=32, rslora=True).scale == 4.0


def test_spread_of_a_fresh_adapter():
    fresh = init_adapter(LoraConfig(rank=64, alpha=1), tiny_params("gemma3"), jax.random.key(0))
    for name, inputs in {"q": 48, "o": 4 * 16, "down": 80}.items():
        part, leaf = TARGETS[name]
        a = np.asarray(fresh["layers"][part][leaf]["a"])
        assert np.abs(a).max() <= inputs**-0.5
        assert a.std() == pytest.approx((inputs * 3) ** -0.5, rel=0.05)


def test_a_layer_is_adapted_by_its_own_factors():
    """The stack of adapters is scanned along: one that is zero but in a layer changes that one."""
    adapter = drawn(LORA)
    one = jax.tree.map(lambda x: jnp.zeros_like(x).at[4].set(x[4]), adapter)
    params = tiny_params("gemma3")
    got = logits("gemma3", params, one, LORA.scale)
    merged = merge(params, one, LORA.scale)
    changed = {
        layer
        for new, old in zip(
            jax.tree.leaves(merged["layers"]), jax.tree.leaves(params["layers"]), strict=True
        )
        for layer in range(7)
        if not np.array_equal(new[layer], old[layer])
    }
    assert changed == {4}
    np.testing.assert_allclose(got, logits("gemma3", merged), atol=5e-5)
    np.testing.assert_allclose(
        got, logits("gemma3", unstack(params), unstack(one), LORA.scale), atol=5e-5
    )


def test_the_adapter_trains_alone_or_the_parameters_do():
    module, params = Gemma(TINY3, lora_scale=LORA.scale), tiny_params("gemma3")
    fresh = init_adapter(LORA, params, jax.random.key(0))

    @functools.partial(jax.jit, static_argnames="trained")
    def gradient(variables, trained):
        def loss(tree):
            hidden_BTD, _ = module.apply({**variables, trained: tree}, IDS, np.ones_like(IDS))
            return jnp.mean(jax.nn.log_softmax(unembed(TINY3, params, hidden_BTD))[:, :, 3])

        return jax.grad(loss)(variables[trained])

    for path, leaf in jax.tree_util.tree_leaves_with_path(
        gradient({"params": params, "lora": fresh}, "lora")
    ):
        # with b = 0 only b learns at first
        assert bool(np.any(np.asarray(leaf))) == (path[-1].key == "b"), path
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient({"params": params}, "params")):
        assert np.any(np.asarray(leaf)), path
