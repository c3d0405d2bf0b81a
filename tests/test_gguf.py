"""GGUF files: bits of every format, models equal to Hugging Face directories, tokenizers."""

import dataclasses
import functools
import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from configs.base import base
from grpo.runs.open_policy import open_policy
from grpo.runs.shapes import base_of
from models import load_model, logits, save_hf
from models.checkpoints import gguf, hf_config
from models.checkpoints.gguf_blocks import FORMATS, dequantise
from models.checkpoints.gguf_config import from_header
from models.checkpoints.gguf_header import read_header
from models.config import SIZES
from models.sharding import make_mesh
from models.tokenizer import Tokenizer, train_tokenizer
from tests.gguf_files import (
    File,
    drawn_params,
    fields_of,
    llama_cpp_tokens,
    tensors_of,
    tiny_config,
    tiny_file,
)
from tests.helpers import assert_trees_equal, tiny_ids
from tests.references import gguf_models
from tests.references.chat_tokenizers import CORPUS, KINDS, tokenizer
from tests.test_tokenizer import NASTY

ARRAYS = np.load(gguf_models.FILE)


@pytest.mark.parametrize("name", gguf_models.BLOCKS)
def test_values_are_ggufs_bit_for_bit(name):
    (form,) = [form for form in FORMATS.values() if form.name == name]
    values = dequantise(ARRAYS[f"raw/{name}"], form)
    assert values.dtype == np.float32 and values.size == 11 * form.values
    wanted = ARRAYS[f"values/{name}"]
    np.testing.assert_array_equal(values.view(np.uint32), wanted.view(np.uint32))


def test_every_format_is_compared():
    assert {form.name for form in FORMATS.values()} == set(gguf_models.BLOCKS)


@functools.cache
def directory_of(family, root):
    """The reference model as a Hugging Face directory, written without our writer."""
    config = from_header(read_header(gguf_models.HERE / f"gguf_models_{family}.gguf"))
    size, folder = gguf_models.SIZES[family], root / family
    folder.mkdir()
    described = {
        **{"num_hidden_layers": size["layers"], "hidden_size": size["width"]},
        **{"intermediate_size": size["ffn"], "num_attention_heads": size["heads"]},
        **{"num_key_value_heads": size["kv"], "head_dim": size["head"]},
        **{"query_pre_attn_scalar": size["head"], "sliding_window": 8},
        "model_type": "gemma3_text" if family == "gemma3" else "gemma2",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(described))
    prefix = f"{family}/"
    weights = {n.removeprefix(prefix): ARRAYS[n] for n in ARRAYS.files if n.startswith(prefix)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder for the module's files."""
    return tmp_path_factory.mktemp("gguf")


@pytest.mark.parametrize("family", gguf_models.SIZES)
def test_files_of_the_gguf_package(family, root):
    """Version 2 and 3, alignment 32 and 64, every format: the directory's model, bit for bit."""
    model = load_model(gguf_models.HERE / f"gguf_models_{family}.gguf")
    wanted = load_model(directory_of(family, root))
    assert model.config == wanted.config
    assert_trees_equal(model.params, wanted.params)
    ids = tiny_ids(2, 12)
    np.testing.assert_array_equal(logits(model, ids), logits(wanted, ids))
    assert model.tokenizer and model.tokenizer.family == family
    assert model.tokenizer.encode(gguf_models.TEXT) == ARRAYS["ids"].tolist()
    assert model.tokenizer.decode(ARRAYS["ids"]) == gguf_models.TEXT


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<u2"])
@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_whole_models(family, dtype, tmp_path):
    """In float32, float16 and bfloat16, and each from there to both of ours."""
    file, config, params = tiny_file(family, dtype)
    path = file.write(tmp_path / "tiny.gguf")
    model = load_model(path)
    assert model.config == config
    assert_trees_equal(model.params, params)  # float32, since the norms are
    short = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    assert_trees_equal(load_model(str(path), dtype="bfloat16").params, short)
    assert_trees_equal(load_model(save_hf(model, tmp_path / "hf")).params, params)


def test_a_file_of_bfloat16_alone_stays_so(tmp_path):
    file, _, params = tiny_file("gemma3", "<u2")
    for i, (name, shape, _, content) in enumerate(file.tensors):
        if len(shape) == 1:
            short = np.frombuffer(content, "<f4").astype(ml_dtypes.bfloat16)
            file.tensors[i] = (name, shape, 30, short.tobytes())
    short = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    assert_trees_equal(load_model(file.write(tmp_path / "a.gguf")).params, short)


def test_on_a_mesh(tmp_path):
    file, _, params = tiny_file("gemma3")
    path = file.write(tmp_path / "tiny.gguf")
    mesh = make_mesh(fsdp=2, tp=2)
    model = load_model(path, mesh=mesh)
    assert_trees_equal(model.params, params)
    table = model.params["embedder"]["table"]
    assert table.sharding.shard_shape(table.shape) == (table.shape[0] // 2, table.shape[1] // 2)
    assert open_policy(path, mesh=mesh).config == model.config


def test_tables_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    file, config, params = tiny_file("gemma2")
    path = file.write(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf, "AT_ONCE", 7 * config.width + 5)
    assert_trees_equal(load_model(path).params, params)


def test_an_output_matrix_that_is_the_table(tmp_path):
    file, _, params = tiny_file("gemma3")
    (table,) = [tensor for tensor in file.tensors if tensor[0] == "token_embd.weight"]
    file.tensors.append(("output.weight", *table[1:]))
    assert_trees_equal(load_model(file.write(tmp_path / "a.gguf")).params, params)


@pytest.mark.parametrize("rows", [0, 1, 64])
def test_rows_beyond_the_tokens_are_dropped(rows, tmp_path):
    file, config, params = tiny_file("gemma3")
    name, shape, number, content = file.tensors[0]
    assert name == "token_embd.weight"
    more = np.full((rows, config.width), 0.5, "<f4").tobytes()
    file.tensors[0] = (name, [shape[0], shape[1] + rows], number, content + more)
    model = load_model(file.write(tmp_path / "a.gguf"))
    assert model.config == config
    assert_trees_equal(model.params, params)


def described(config):
    """What a GGUF file would say of a published size, as Header.fields, but for its tokens."""
    table = [("token_embd.weight", [config.width, config.vocab_size], 30, b"")]
    fields = fields_of(config, tokenizer("trained"))
    return [(name, value) for name, value in fields if "tokenizer" not in name], table


@pytest.mark.parametrize("size", [name for name in SIZES if not name.endswith(("tiny", "micro"))])
def test_published_sizes(size, tmp_path):
    """All of a size comes back: the query scalar of 27b, the layers, the scaling."""
    config = SIZES[size]
    file, _, _ = tiny_file(config.family)
    file.fields, file.tensors = described(config)
    path = file.write(tmp_path / "a.gguf")
    with path.open("ab") as stream:
        stream.truncate(path.stat().st_size + 2 * config.width * config.vocab_size)
    assert from_header(read_header(path)) == config


def test_what_early_files_of_gemma2_lack(tmp_path):
    file, config, _ = tiny_file("gemma2")
    for name in ("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"):
        file.change(f"gemma2.{name}")
    wanted = dataclasses.replace(config, window=4096)
    assert from_header(read_header(file.write(tmp_path / "a.gguf"))) == wanted


def test_scaling_and_bases(tmp_path):
    file, config, _ = tiny_file("gemma3")

    def read():
        return from_header(read_header(file.write(tmp_path / "a.gguf")))

    assert read().global_rope_factor == 8.0
    file.change("gemma3.rope.scaling.type")
    assert read() == config  # of an unnamed kind it is linear
    file.change("gemma3.rope.scaling.type", "text", "none")
    assert read().global_rope_factor == 1.0
    file.change("gemma3.rope.scaling.factor")
    file.change("gemma3.rope.freq_base")
    file.change("gemma3.rope.freq_base_swa", "f32", 5000.0)
    assert (read().global_theta, read().local_theta) == (1e6, 5000.0)
    assert read().global_rope_factor == 1.0


@pytest.mark.parametrize("style", ["new", "old"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_come_back(kind, style, tmp_path):
    """Both ways of llama.cpp's converters, from small ones and, where they are, Gemma's own."""
    original = tokenizer(kind)
    tokens, scores, types = llama_cpp_tokens(original, style)
    file, _, _ = tiny_file("gemma3")
    file.tensors = []
    file.change("tokenizer.ggml.tokens", "list text", tokens)
    file.change("tokenizer.ggml.scores", "list f32", scores.tolist())
    file.change("tokenizer.ggml.token_type", "list i32", types.tolist())
    header = read_header(file.write(tmp_path / "a.gguf"))
    again = gguf.read_tokenizer(header, original.family)
    assert (again.vocab_size, again.stop_ids) == (original.vocab_size, original.stop_ids)
    assert (again.pad_id, again.bos_id) == (original.pad_id, original.bos_id)
    for text in (*NASTY, *CORPUS, *MARKED):
        ids = original.encode(text)
        assert again.encode(text) == ids and again._pieces.encode(text) == raw(original, text)
    some = [*range(500), *range(0, original.vocab_size, 97)]
    for token in some:
        if token < original.vocab_size:
            assert again.decode([token]) == original.decode([token])


MARKED = [
    "<start_of_turn>user\nHi<end_of_turn>\n<bos><eos><pad><unk><mask><unused7>[multimodal]",
    "<table><tr><td>1</td></tr></table></code><s></s>",
    *("a" + space * count + "b" for space in " \t\n" for count in (1, 2, 3, 16, 31, 32, 40)),
]


def raw(original, text):
    """sentencepiece's ids, control strings uncut: types and scores show here."""
    return original._pieces.encode(text)


def test_pieces_of_any_length(tmp_path):
    file, _, _ = tiny_file("gemma3")
    tokens, _, _ = llama_cpp_tokens(Tokenizer(train_tokenizer(CORPUS, 320)), "new")
    long = ["x" * length for length in (121, 122, 130, 1000)]  # written in one or two bytes
    file.change("tokenizer.ggml.tokens", "list text", [*tokens[:-4], *long])
    again = gguf.read_tokenizer(read_header(file.write(tmp_path / "a.gguf")), "gemma3")
    assert [again.decode([i]) for i in range(316, 320)] == long


def test_rows_of_padding_that_are_listed_as_tokens(monkeypatch, tmp_path):
    file, config, _ = tiny_file("gemma3")
    original = Tokenizer(train_tokenizer(CORPUS, 320))
    tokens, scores, types = llama_cpp_tokens(original, "new")
    count = len(tokens)
    monkeypatch.setitem(hf_config.PADDED_VOCAB, count + 2, count)
    file.change("tokenizer.ggml.tokens", "list text", [*tokens, "<image_soft_token>", "[PAD1]"])
    file.change("tokenizer.ggml.scores", "list f32", [*scores.tolist(), -1e3, -1e4])
    file.change("tokenizer.ggml.token_type", "list i32", [*types.tolist(), 3, 5])
    model = load_model(file.write(tmp_path / "a.gguf"))
    assert model.config == config
    assert model.tokenizer and model.tokenizer.vocab_size == count


def test_a_preflight_reads_the_sizes(tmp_path):
    file, config, _ = tiny_file("gemma3")
    run = base().to_dict()
    run["model"]["path"] = str(file.write(tmp_path / "a.gguf"))
    assert base_of(run).config == config


def test_what_is_held_beside_the_weights(tmp_path):
    """A large table is never there twice, and of the file nothing stays."""
    config = dataclasses.replace(tiny_config("gemma3", 20_000), width=256)
    tensors = tensors_of(config, drawn_params(config), "<f2")
    header = read_header(File([], tensors).write(tmp_path / "a.gguf"))
    tracemalloc.start()
    params = gguf.load(header, config, None, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    assert 20_000 * 256 * 4 < weights < peak < 1.25 * weights
