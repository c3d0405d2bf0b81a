"""Our models against arrays that transformers and peft made of the same weights.

The weights reach our model as users' do: as a Hugging Face directory read by `load_model`.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from models import load_model, logits, save_adapter
from models.checkpoints import hf
from models.checkpoints.layout import sizes, to_theirs
from models.gemma import unembed
from models.sharding import path_name
from tests.references import transformers_models
from tests.references.recipe import draw

HERE = transformers_models.HERE
ABOUT = json.loads((HERE / "transformers_models.json").read_text())
IDS_BT, MASK_BT = transformers_models.rows()


@functools.cache
def arrays():
    with np.load(HERE / "transformers_models.npz") as file:
        return {name: file[name] for name in file.files}


def write_directory(folder, name):
    """The case as transformers would have saved it."""
    weights = draw(ABOUT[name]["shapes"], 0, transformers_models.SCALE[name])
    (folder / "config.json").write_text(json.dumps(ABOUT[name]["config"]))
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module", params=transformers_models.CASES)
def case(request, tmp_path_factory):
    folder = write_directory(tmp_path_factory.mktemp(request.param), request.param)
    return request.param, load_model(folder)


def gap(got, name):
    """The largest difference on tokens that are not padding."""
    return np.abs(np.asarray(got) - arrays()[name])[MASK_BT == 1].max()


def test_logits(case):
    name, model = case
    assert gap(logits(model, IDS_BT, MASK_BT), f"{name}/logits") <= 1e-4


def supervised_loss(params, model):
    """Mean cross-entropy of the scored tokens, each predicted by the position before it."""
    hidden_BTD, _ = model.module.apply({"params": params}, IDS_BT, MASK_BT)
    logprob_BTV = jax.nn.log_softmax(unembed(model.config, params, hidden_BTD)[:, :-1])
    next_BT1 = jnp.asarray(IDS_BT)[:, 1:, None]
    logprob_BT = jnp.take_along_axis(logprob_BTV, next_BT1, axis=-1)[:, :, 0]
    scored_BT = jnp.asarray(transformers_models.targets(MASK_BT))[:, 1:]
    return -jnp.sum(logprob_BT * scored_BT) / jnp.sum(scored_BT)


def test_loss_and_gradients_of_a_supervised_step(case):
    name, model = case
    loss, grads = jax.value_and_grad(lambda p: supervised_loss(p, model))(model.params)
    np.testing.assert_allclose(loss, arrays()[f"{name}/loss"], rtol=1e-5)
    leaves = {path_name(p): g for p, g in jax.tree_util.tree_leaves_with_path(grads)}
    for (leaf, layer), (tensor, pattern) in hf.tensor_names(model.config).items():
        ours = leaves[leaf] if layer is None else leaves[f"layers/{leaf}"][layer]
        ours = to_theirs(np.asarray(ours), pattern, sizes(model.config))
        theirs = arrays()[f"{name}/grad/model.{tensor}"]
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs), tensor


def test_peft_adapter(tmp_path):
    name = transformers_models.ADAPTED
    folder = write_directory(tmp_path, name)
    model = load_model(folder, adapter=HERE / "peft_adapter")
    adapted = logits(model, IDS_BT, MASK_BT)
    assert gap(logits(model.base(), IDS_BT, MASK_BT), f"{name}/logits") <= 1e-4
    assert gap(adapted, f"{name}/adapted") <= 2e-4
    assert gap(logits(model.merged(), IDS_BT, MASK_BT), f"{name}/merged") <= 2e-4
    assert np.abs(np.asarray(adapted) - arrays()[f"{name}/logits"]).max() > 0.1


def test_peft_adapter_goes_out_bit_for_bit(tmp_path):
    folder = write_directory(tmp_path, transformers_models.ADAPTED)
    model = load_model(folder, adapter=HERE / "peft_adapter")
    save_adapter(model, tmp_path / "out")
    ours = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    theirs = safetensors.numpy.load_file(HERE / "peft_adapter" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value)
