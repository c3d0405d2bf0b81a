"""Directories out and in again, and the questions a model answers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from models import Policy, load_model, logits, save_adapter, save_hf
from models.checkpoints import hf
from models.checkpoints.files import CheckpointError
from models.tokenizer import Tokenizer, train_tokenizer
from tests.helpers import TINY, assert_trees_equal, tiny_ids, tiny_params
from tests.test_lora import LORA, drawn


def tiny_model(family="gemma3", dtype="float32", **kwargs):
    return Policy(config=TINY[family], params=tiny_params(family, dtype), **kwargs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", TINY)
def test_hugging_face_round_trip_is_bit_exact(tmp_path, family, dtype):
    model = tiny_model(family, dtype)
    loaded = load_model(save_hf(model, tmp_path / "out"))
    assert loaded.config == model.config
    assert_trees_equal(loaded.params, model.params)


def test_merged_directory_and_adapter_directory(tmp_path):
    model = tiny_model(lora=LORA, adapter=drawn(LORA))
    merged = load_model(save_hf(model, tmp_path / "merged"))
    assert_trees_equal(merged.params, model.merged().params)
    save_hf(model.base(), tmp_path / "base")
    loaded = load_model(tmp_path / "base", adapter=save_adapter(model, tmp_path / "adapter"))
    assert_trees_equal(loaded.params, model.params)
    assert_trees_equal(loaded.adapter, model.adapter)
    assert loaded.scale == LORA.scale


def test_what_an_exported_directory_holds(tmp_path):
    texts = ["one two three 1 2 3"] * 3
    tokenizer = Tokenizer(train_tokenizer(texts, 400), "gemma2")
    config = TINY["gemma2"]
    out = save_hf(tiny_model("gemma2", tokenizer=tokenizer), tmp_path / "out")
    assert (out / "tokenizer.model").read_bytes() == tokenizer.proto
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert "lm_head.weight" not in index["weight_map"]
    with safetensors.safe_open(out / "model-00001-of-00001.safetensors", "np") as file:
        assert set(file.keys()) == set(index["weight_map"])
        shape = file.get_slice("model.layers.1.self_attn.q_proj.weight").get_shape()
    assert shape == [config.num_heads * config.head_dim, config.width]
    total = sum(x.nbytes for x in [np.asarray(v) for v in leaves(tiny_params("gemma2"))])
    assert index["metadata"]["total_size"] == total
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_id, tokenizer.end_of_turn_id]


def leaves(tree):
    return [
        x
        for value in tree.values()
        for x in (leaves(value) if isinstance(value, dict) else [value])
    ]


@pytest.mark.parametrize(("family", "stop_ids"), [("gemma3", [1, 106]), ("gemma2", [1, 107])])
def test_published_stop_ids_without_a_tokenizer(tmp_path, family, stop_ids):
    out = save_hf(tiny_model(family), tmp_path / "out")
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == stop_ids


def test_an_export_never_overwrites_and_never_leaves_half(tmp_path, monkeypatch):
    out = save_hf(tiny_model(), tmp_path / "out")
    with pytest.raises(CheckpointError, match="exists and is not an empty directory"):
        save_hf(tiny_model(), out)

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(hf, "write_tensors", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_hf(tiny_model(), tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_logits_of_padded_rows():
    model, ids = tiny_model(), tiny_ids(1, 6)
    padded = np.concatenate([[[0, 0]], ids], axis=1)
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 1]])
    got = logits(model, padded, mask)
    assert got.dtype == jnp.float32 and got.shape == (1, 8, 96)
    np.testing.assert_allclose(got[:, 2:], logits(model, ids.tolist()), atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 96]], None, r"found 1 \.\. 96, the vocabulary is 0 \.\. 95"),
        ([[-1, 5]], None, "found -1"),
        ([1, 2, 3], None, "rows of token ids"),
        ([[1, 2], [3]], None, "rows of token ids of equal"),
        ([[]], None, "rows of token ids"),
        ([[1.5, 2.0]], None, "rows of token ids"),
        ([[1, 2]], [[1]], r"mask: shape \(1, 1\), ids have \(1, 2\)"),
    ],
)
def test_impossible_questions(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        logits(tiny_model(), ids, mask)


def test_there_may_be_nothing_to_save(tmp_path):
    with pytest.raises(CheckpointError, match="no adapter"):
        save_adapter(tiny_model(), tmp_path / "out")


def test_an_adapter_comes_with_its_scale():
    with pytest.raises(ValueError, match="lora and adapter come together"):
        tiny_model(adapter=drawn(LORA))


def test_unknown_dtype(tmp_path):
    with pytest.raises(ValueError, match="dtype='float8'"):
        load_model(tmp_path, dtype="float8")
