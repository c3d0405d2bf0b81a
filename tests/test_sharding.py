"""The sharding table on eight virtual devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from models import load_model, save_hf
from models.checkpoints import layout
from models.checkpoints.layout import build
from models.config import SIZES
from models.gemma import Gemma, param_shapes, unstack
from models.lora import LoraConfig, init_adapter
from models.policy import Policy
from models.sharding import (
    AXES,
    describe,
    fit,
    make_mesh,
    path_name,
    row_sharding,
    shardings,
    spec_for,
)
from tests.helpers import TINY3, assert_trees_equal, logits_of, tiny_ids, tiny_params

MESHES = [(8, 1), (4, 2), (2, 4), (1, 8)]
LORA = LoraConfig(rank=3, alpha=6)


@functools.cache
def alone():
    """Logits and gradients on one device."""
    return forward_and_gradient(None, 8)


def forward_and_gradient(mesh, batch):
    params = tiny_params("gemma3")
    adapter = init_adapter(LORA, params, jax.random.key(0))
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    ids = tiny_ids(batch, 12)
    if mesh is not None:
        params = jax.device_put(params, shardings(params, mesh))
        adapter = jax.device_put(adapter, shardings(adapter, mesh))
        ids = jax.device_put(ids, row_sharding(batch, 2, mesh))
    module = Gemma(TINY3, lora_scale=LORA.scale, mesh=mesh)

    @jax.jit
    def step(variables, ids):
        def loss(variables):
            logits_BTV = logits_of(module, variables, ids, jnp.ones_like(ids))
            return jnp.mean(jax.nn.log_softmax(logits_BTV)[:, :, 3]), logits_BTV

        (_, logits_BTV), grads = jax.value_and_grad(loss, has_aux=True)(variables)
        return logits_BTV, grads

    return step({"params": params, "lora": adapter}, ids)


@pytest.mark.parametrize("shape", MESHES)
def test_meshes_equal_one_device(shape):
    logits, grads = forward_and_gradient(make_mesh(*shape), 8)
    want, wanted = alone()
    assert np.abs(want).max() > 3
    np.testing.assert_allclose(logits, want, atol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_odd_batch_is_kept_whole_and_said():
    mesh = make_mesh(4, 2)
    assert row_sharding(3, 2, mesh).spec == P(None, None)
    logits, _ = forward_and_gradient(mesh, 3)
    np.testing.assert_allclose(logits, alone()[0][:3], atol=1e-5)
    assert describe({}, mesh, batch=3) == [
        "batch rows (3,): 3 does not divide by fsdp=4, "
        "so each of the 4 devices along fsdp holds it whole"
    ]


TABLE_1B = {  # on (fsdp, tp) = (4, 2); one key/value head does not divide by tp
    "embedder/table": P("tp", "fsdp"),
    "layers/attention/q/w": P(None, "fsdp", "tp", None),
    "layers/attention/k/w": P(None, "fsdp", None, None),
    "layers/attention/v/w": P(None, "fsdp", None, None),
    "layers/attention/o/w": P(None, "tp", None, "fsdp"),
    "layers/mlp/gate/w": P(None, "fsdp", "tp"),
    "layers/mlp/up/w": P(None, "fsdp", "tp"),
    "layers/mlp/down/w": P(None, "tp", "fsdp"),
}


def test_actual_sharding_of_every_large_weight_at_the_1b_shape():
    """Real arrays of the real shape, placed as a loader places them."""
    mesh, shapes = make_mesh(4, 2), param_shapes(SIZES["gemma3_1b"], jnp.bfloat16)

    def zeros(leaf, layer):
        whole = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(shapes)}
        shape = whole[leaf].shape if layer is None else whole[f"layers/{leaf}"].shape[1:]
        return np.zeros(shape, jnp.bfloat16)

    large = {}
    for path, array in jax.tree_util.tree_leaves_with_path(build(shapes, zeros, mesh)):
        if array.nbytes >= 1e6:
            large[path_name(path)] = array.sharding.spec
            parts = np.prod([mesh.shape[a] for a in array.sharding.spec if a])
            assert array.addressable_shards[0].data.nbytes * parts == array.nbytes
    assert large == TABLE_1B


def test_one_kv_head_on_four_way_tp_is_said():
    lines = describe(param_shapes(SIZES["gemma3_1b"]), make_mesh(2, 4))
    assert lines == [
        f"layers/attention/{x}/w (26, 1152, 1, 256): 1 does not divide by tp=4, "
        "so each of the 4 devices along tp holds it whole"
        for x in "kv"
    ]
    assert describe(param_shapes(SIZES["gemma3_1b"]), make_mesh(8, 1)) == []


@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_and_adapter_has_a_rule(size):
    shapes = param_shapes(SIZES[size])
    adapter = jax.eval_shape(lambda: init_adapter(LORA, shapes, jax.random.key(0)))
    for tree in (shapes, adapter):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            spec = spec_for(path_name(path), len(leaf.shape))
            assert len(spec) in (0, len(leaf.shape)), path
            assert leaf.shape[0] == leaf.size or "scale" in path_name(path) or any(spec), path


def test_unmatched_parameters_are_errors():
    with pytest.raises(
        ValueError, match="no sharding rule matches parameter 'layers/mlp/router/w'"
    ):
        shardings({"layers": {"mlp": {"router": {"w": jnp.zeros((2, 3))}}}}, make_mesh(2, 1))


def test_fit_drops_what_does_not_divide():
    mesh = make_mesh(4, 2)
    assert fit(P("tp", "fsdp"), (262_144, 1152), mesh) == P("tp", "fsdp")
    assert fit(P("tp", "fsdp"), (262_145, 1152), mesh) == P(None, "fsdp")
    assert fit(P(), (3, 5), mesh) == P(None, None)


def test_unstacked_layers_are_sharded_as_the_stack():
    mesh = make_mesh(2, 4)
    params = unstack(param_shapes_as_arrays())
    places = shardings(params, mesh)
    assert places["layers"][3]["mlp"]["down"]["w"].spec == P("tp", "fsdp")
    assert places["layers"][3]["attention"]["o"]["w"].spec == P("tp", None, "fsdp")
    assert places["layers"][3]["attention"]["q_norm"]["scale"].spec == P(None)


def param_shapes_as_arrays():
    return jax.tree.map(lambda x: jnp.zeros(x.shape), param_shapes(TINY3))


def test_too_large_a_mesh_is_refused():
    with pytest.raises(ValueError, match=r"mesh \(fsdp=4, tp=4\) needs 16 devices, here are 8"):
        make_mesh(4, 4)


def test_loading_places_shards_directly(tmp_path, monkeypatch):
    save_hf(Policy(config=TINY3, params=tiny_params("gemma3")), tmp_path / "model")
    mesh = make_mesh(4, 2)
    sent = []
    original = layout.place

    def place(host, sharding):
        array = original(host, sharding)
        sent.append(isinstance(sharding, NamedSharding) and tuple(sharding.mesh.axis_names) == AXES)
        return array

    monkeypatch.setattr(layout, "place", place)
    model = load_model(tmp_path / "model", mesh=mesh)
    assert sent and all(sent)
    assert_trees_equal(model.params, tiny_params("gemma3"))
    for array, place in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(shardings(model.params, mesh)), strict=True
    ):
        assert array.sharding == place
