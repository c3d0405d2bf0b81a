"""A policy: what it trains, how it is applied, its base and its merged self."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import Policy, logits
from models.gemma import param_shapes
from models.lora import LoraConfig, init_adapter
from models.sharding import make_mesh, shardings
from tests.helpers import SHALLOW, assert_trees_equal, shallow_params, tiny_ids

LORA = LoraConfig(rank=2, alpha=4.0, targets="q")


def adapted(**changes) -> Policy:
    """With an adapter that says something."""
    adapter = init_adapter(LORA, shallow_params(), jax.random.key(0))
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    made = {"config": SHALLOW, "params": shallow_params(), "lora": LORA, "adapter": adapter}
    return Policy(**{**made, **changes})


def test_what_a_policy_trains_and_what_it_does_not():
    params = shallow_params()
    full = Policy(config=SHALLOW, params=params)
    assert full.trainable is params and full.frozen is None and full.scale == 0.0
    assert full.with_trained("new").params == "new" and full.variables == {"params": params}
    policy = adapted()
    adapter = policy.adapter
    assert policy.trainable is adapter and policy.frozen is params and policy.scale == 2.0
    assert policy.variables == {"params": params, "lora": adapter}
    after = policy.with_trained("new")
    assert after.params is params and after.adapter == "new" and after.lora is LORA
    assert policy.base().variables == {"params": params}


def test_an_adapter_and_its_config_come_together():
    with pytest.raises(ValueError, match="lora and adapter come together"):
        Policy(config=SHALLOW, params=shallow_params(), lora=LORA)


def test_how_it_is_applied():
    policy = adapted(dtype="bfloat16", attention="fused", remat="full")
    module = policy.module
    assert (module.dtype, module.param_dtype) == (jnp.bfloat16, jnp.float32)
    assert (module.attention, module.remat, module.lora_scale) == ("fused", "full", 2.0)
    assert adapted().module.dtype == jnp.float32
    assert hash(adapted().module) == hash(adapted().module)  # one program for both


def test_merged_says_the_same():
    ids = tiny_ids(2, 9)
    want = np.asarray(logits(adapted(), ids))
    np.testing.assert_allclose(logits(adapted().merged(), ids), want, atol=1e-4)
    assert np.abs(logits(adapted().base(), ids) - want).max() > 0.01
    plain = adapted().base()
    assert plain.merged() is plain


def test_merged_lies_where_the_parameters_did():
    mesh = make_mesh(fsdp=4, tp=2)
    params = jax.device_put(shallow_params(), shardings(shallow_params(), mesh))
    policy = adapted(params=params, mesh=mesh)
    merged = policy.merged().params
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(merged), strict=True):
        assert after.sharding.is_equivalent_to(before.sharding, before.ndim)


def test_what_is_not_there_yet_can_be_lowered():
    shapes = dataclasses.replace(adapted().base(), params=param_shapes(SHALLOW))
    ids = jax.ShapeDtypeStruct((2, 9), jnp.int32)
    hidden, _ = jax.eval_shape(shapes.module.apply, shapes.variables, ids, ids)
    assert hidden.shape == (2, 9, SHALLOW.width)


def test_a_policy_without_a_tokenizer():
    with pytest.raises(ValueError, match="no tokenizer"):
        _ = adapted().own_tokenizer
    assert_trees_equal(adapted().params, shallow_params())
