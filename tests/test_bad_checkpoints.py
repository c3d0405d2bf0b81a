"""Damaged Hugging Face directories, refused in one line, and odd ones that load bit for bit."""

import dataclasses
import itertools
import json
import shutil
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from models import Policy, load_model, save_hf
from models.checkpoints import hf
from models.checkpoints.files import INDEX, CheckpointError
from models.tokenizer import train_tokenizer
from tests.helpers import TINY, TINY3, assert_trees_equal, tiny_params

FILE = "model.safetensors"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PICKLE = b"cos\nsystem\n(S'false'\ntR."  # runs a command where it is opened
Q, NORM = "model.layers.3.self_attn.q_proj.weight", "model.norm.weight"


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch):
    """Whatever opens a pickle fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("a pickle was opened")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory of each family in one file without an index, and Gemma 3 in several with one."""
    root = tmp_path_factory.mktemp("saved")
    for family, config in TINY.items():
        folder = save_hf(Policy(config=config, params=tiny_params(family)), root / family)
        (folder / INDEX).unlink()
        (folder / "model-00001-of-00001.safetensors").rename(folder / FILE)
    hf.save(root / "sharded", TINY3, tiny_params("gemma3"), None, shard_bytes=100_000)
    return root


@pytest.fixture
def folder(saved, tmp_path):
    """A whole Gemma 3 directory to damage."""
    return shutil.copytree(saved / "gemma3", tmp_path / "gemma3")


@pytest.fixture
def sharded(saved, tmp_path):
    """The same weights in several files with an index."""
    return shutil.copytree(saved / "sharded", tmp_path / "sharded")


def refusal(folder, **options):
    """The error of loading a directory: one line that names it or a file of it."""
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, **options)
    message = str(caught.value)
    assert message.startswith(str(folder)) and len(message.splitlines()) == 1
    return message.removeprefix(str(folder))


def change(folder, edit):
    """Rewrites the weights as `edit` makes them of {name: array}."""
    weights = edit(safetensors.numpy.load_file(folder / FILE))
    safetensors.numpy.save_file(weights, folder / FILE)


def change_one(folder, name, edit):
    """Replaces one tensor, or removes it where None replaces it."""

    def replace(weights):
        array = edit(weights.pop(name, None))
        return weights if array is None else {**weights, name: np.array(array, order="C")}

    change(folder, replace)


def change_config(folder, **changes):
    """Overrides fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def header(content):
    """A safetensors file's header and the bytes behind it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(entries, body):
    """A safetensors file of them."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_extra(content, name, dtype, shape, data):
    """The file with one tensor more, of any dtype."""
    entries, body = header(content)
    span = [len(body), len(body) + len(data)]
    entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": span}
    return with_header(entries, body + data)


def resized(table, rows):
    """The embedding cut, or with more rows that belong to no token."""
    more = max(rows - len(table), 0)
    return np.pad(table, ((0, more), (0, 0)), constant_values=0.5)[:rows]


# What becomes of one tensor -> what the error says after the directory's name.
BAD_TENSORS = (
    (Q, lambda x: None, f": lacks tensor {Q}; is this the architecture of these weights?"),
    (
        Q,
        lambda x: x[:-1],
        f"/{FILE}: tensor {Q} has shape [63, 48], the architecture makes it [64, 48]",
    ),
    (
        Q,
        lambda x: x.T,
        f"/{FILE}: tensor {Q} has shape [48, 64], the architecture makes it [64, 48]",
    ),
    (Q, lambda x: x.reshape(4, 16, 48), f"/{FILE}: tensor {Q} has shape [4, 16, 48], the"),
    (Q, lambda x: x[0, 0], f"/{FILE}: tensor {Q} has shape [], the"),
    (Q, lambda x: x.astype("i4"), f"/{FILE}: tensor {Q} has dtype I32, expected float32, float16"),
    (Q, lambda x: x.astype("f8"), f"/{FILE}: tensor {Q} has dtype F64, expected float32, float16"),
    (NORM, lambda x: np.pad(x, (0, 64)), f"/{FILE}: tensor {NORM} has shape [112], the arch"),
    (
        "model.extra",
        lambda x: np.ones(3, "f"),
        f"/{FILE}: has unexpected tensor model.extra; is this",
    ),
    ("a\nb", lambda x: np.ones(3, "f"), f"/{FILE}: has unexpected tensor a b; is this"),
    (f"x.{TABLE}", lambda x: np.ones(3, "f"), f"/{FILE}: has unexpected tensor x.{TABLE}; is this"),
    (f"language_model.{TABLE}", lambda x: np.ones(3, "f"), ": 2 tensors named embed_tokens.weight"),
    (TABLE, lambda x: None, ": 0 tensors named embed_tokens.weight with a prefix of model., "),
    (TABLE, lambda x: resized(x, 95), f"/{FILE}: tensor {TABLE} has shape [95, 48], the arch"),
    (
        TABLE,
        lambda x: resized(x, 96 + 129),
        f"/{FILE}: tensor {TABLE} has shape [225, 48], the arch",
    ),
    (TABLE, lambda x: x[0, 0], f"/{FILE}: tensor {TABLE} has shape [], the arch"),
    (HEAD, lambda x: np.ones((96, 48), "f"), f"/{FILE}: {HEAD} differs from {TABLE}, but"),
    (HEAD, lambda x: np.ones(1, "f"), f"/{FILE}: {HEAD} differs from {TABLE}, but"),
    (HEAD, lambda x: np.ones((96, 48), "i4"), f"/{FILE}: tensor {HEAD} has dtype I32, expected"),
)


@pytest.mark.parametrize(
    ("name", "edit", "expected"), BAD_TENSORS, ids=[expected for *_, expected in BAD_TENSORS]
)
def test_bad_tensors(name, edit, expected, folder):
    change_one(folder, name, edit)
    assert refusal(folder).startswith(expected)


def test_head_of_a_dtype_that_numpy_lacks(folder):
    content = (folder / FILE).read_bytes()
    content = with_extra(content, HEAD, "F8_E4M3", [96, 48], bytes(96 * 48))
    (folder / FILE).write_bytes(content)
    assert refusal(folder).startswith(f"/{FILE}: tensor {HEAD} has dtype F8_E4M3, expected")


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        *itertools.product([Q], [np.nan, np.inf, -np.inf], ["f4", "f2", ml_dtypes.bfloat16]),
        (TABLE, np.nan, "f4"),
        (HEAD, np.nan, "f4"),
    ],
)
def test_values_that_are_not_finite(name, value, dtype, folder):
    def poke(weights):
        weights = {n: x.astype(dtype) for n, x in weights.items()}
        weights[HEAD] = weights[TABLE].copy()
        weights[name][5, 7] = value
        return weights

    change(folder, poke)
    assert refusal(folder) == f"/{FILE}: tensor {name} is not finite at (5, 7)"


def overlapping(content):
    """A tensor on the last bytes of another."""
    entries, body = header(content)
    span = [len(body) - 4, len(body)]
    return with_header({**entries, "a": {"dtype": "F32", "shape": [1], "data_offsets": span}}, body)


def out_of_range(content):
    """A tensor behind the end."""
    return with_extra(content, "a", "F32", [2], bytes(8))[:-4]


def gap(content):
    """Bytes that belong to no tensor."""
    entries, body = header(content)
    del entries[Q]
    return with_header(entries, body)


BAD_BYTES = {
    "empty": lambda content: b"",
    "five_bytes": lambda content: content[:5],
    "cut_in_the_header": lambda content: content[:200],
    "cut_in_the_data": lambda content: content[: len(content) // 2],
    "last_byte_missing": lambda content: content[:-1],
    "data_after_the_end": lambda content: content + bytes(4),
    "header_of_2_62_bytes": lambda content: struct.pack("<Q", 2**62) + content[8:],
    "header_longer_than_the_file": lambda content: struct.pack("<Q", 2**26) + content[8:],
    "header_that_is_no_json": lambda content: content[:8] + b"[" + content[9:],
    "header_with_line_breaks": lambda content: struct.pack("<Q", 5) + b"{\n\n\nx",
    "overlapping": overlapping,
    "out_of_range": out_of_range,
    "gap": gap,
    "shape_too_large_for_its_bytes": lambda c: with_extra(c, "a", "F32", [2**40], bytes(4)),
    "shape_whose_size_overflows": lambda c: with_extra(c, "a", "F32", [2**62, 4, 2**62], bytes(4)),
    "negative_shape": lambda content: with_extra(content, "a", "F32", [-1], bytes(4)),
    "unknown_dtype": lambda content: with_extra(content, "a", "F33", [1], bytes(4)),
    "pickle": lambda content: PICKLE,
    "page_not_found": lambda content: b"<!DOCTYPE html><title>404</title>",
    "pointer_of_git_lfs": lambda content: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    ),
}


@pytest.mark.parametrize("damage", BAD_BYTES)
def test_bad_files(damage, folder):
    (folder / FILE).write_bytes(BAD_BYTES[damage]((folder / FILE).read_bytes()))
    assert refusal(folder).startswith(f"/{FILE}: not a whole safetensors file (")


def index_of(folder):
    """The index's map from tensor to file."""
    return json.loads((folder / INDEX).read_text())["weight_map"]


def write_index(folder, weight_map):
    """An index with another map."""
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("../x.safetensors", "file name '../x.safetensors' leads out of the directory"),
        ("/dev/null", "file name '/dev/null' leads out of the directory"),
        ("sub/x.safetensors", "file name 'sub/x.safetensors' leads out of the directory"),
        ("..", "names .., which is not in the directory"),
        ("x.safetensors", "names x.safetensors, which is not in the directory"),
        ("a\nb.safetensors", "names a b.safetensors, which is not in the directory"),
        (3, "names 3, which is not in the directory"),
        (None, "names None, which is not in the directory"),
        ([1], "names [1], which is not in the directory"),
    ],
)
def test_index_that_names_what_it_should_not(file, expected, sharded):
    shutil.copyfile(sharded / index_of(sharded)[Q], sharded.parent / "x.safetensors")
    write_index(sharded, {**index_of(sharded), Q: file})
    assert refusal(sharded) == f"/{INDEX}: {expected}"


def test_index_that_names_a_pickle(sharded):
    (sharded / "pytorch_model.bin").write_bytes(PICKLE)
    write_index(sharded, {**index_of(sharded), Q: "pytorch_model.bin"})
    assert refusal(sharded).startswith("/pytorch_model.bin: .bin weights are never opened; convert")


def test_index_that_contradicts_its_files(sharded):
    whole = index_of(sharded)
    file, other = whole[Q], whole[TABLE]
    assert file != other
    write_index(sharded, {**whole, Q: other})
    assert refusal(sharded) == f"/{INDEX}: tensor {Q} is not in {other}"
    write_index(sharded, {**whole, "model.extra": file})
    assert refusal(sharded) == f"/{INDEX}: tensor model.extra is not in {file}"
    write_index(sharded, {name: file for name, file in whole.items() if name != Q})
    assert refusal(sharded) == f"/{file}: tensor {Q} is not in {INDEX}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": ["x.safetensors"]}', "has no weight_map"),
        ("[]", "expected a JSON object, found list"),
        ('{"weight_map": {', "not valid JSON"),
    ],
)
def test_index_that_is_none(content, expected, sharded):
    (sharded / INDEX).write_text(content)
    assert refusal(sharded).startswith(f"/{INDEX}: {expected}")


def test_missing_shard(sharded):
    file = index_of(sharded)[Q]
    (sharded / file).unlink()
    assert refusal(sharded) == f"/{INDEX}: names {file}, which is not in the directory"


def test_tensor_in_two_shards(sharded):
    files = sorted(set(index_of(sharded).values()))
    first, last = (safetensors.numpy.load_file(sharded / file) for file in (files[0], files[-1]))
    name = next(iter(first))
    safetensors.numpy.save_file({**last, name: first[name]}, sharded / files[-1])
    assert refusal(sharded) == f"/{files[-1]}: tensor {name} is also in {files[0]}"


def test_several_files_without_an_index(sharded):
    files = set(index_of(sharded).values())
    (sharded / INDEX).unlink()
    assert len(files) > 2
    assert refusal(sharded) == f": {len(files)} safetensors files but no {INDEX}"


@pytest.mark.parametrize("suffix", [".bin", ".BIN", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".h5"])
def test_pickles_are_never_opened(suffix, folder):
    (folder / FILE).unlink()
    pickle = folder / f"pytorch_model{suffix}"
    pickle.write_bytes(PICKLE)
    assert refusal(folder) == (
        f"/{pickle.name}: {suffix} weights are never opened; convert them to safetensors"
    )


def test_no_checkpoint_directory(folder, tmp_path):
    assert refusal(folder, revision="main") == ": a local directory has no revision 'main'"
    assert refusal(folder / FILE) == ": a file, where a checkpoint directory is expected"
    (folder / FILE).unlink()
    assert refusal(folder) == f": has no {FILE} and no {INDEX}"
    (folder / "config.json").unlink()
    assert refusal(folder) == "/config.json: no such file"
    empty = tmp_path / "empty"
    assert refusal(empty) == ": no such directory, and not a Hub repository `owner/name`"
    empty.mkdir()
    assert refusal(empty) == "/config.json: no such file"


# Changes to a config that contradict the weights.
BAD_CONFIGS = (
    (
        {"num_hidden_layers": 8},
        ": lacks tensor model.layers.7.input_layernorm.weight (and 12 more)",
    ),
    (
        {"num_hidden_layers": 6},
        f"/{FILE}: has unexpected tensor model.layers.6.input_layernorm.weight (and",
    ),
    (
        {"hidden_size": 64},
        f"/{FILE}: tensor {TABLE} has shape [96, 48], the architecture makes it [96, 64]",
    ),
    (
        {"vocab_size": 97},
        f"/{FILE}: tensor {TABLE} has shape [96, 48], the architecture makes it [97, 48]",
    ),
    (
        {"num_attention_heads": 2},
        ".o_proj.weight has shape [48, 64], the architecture makes it [48, 32]",
    ),
    (
        {"num_key_value_heads": 4},
        ".k_proj.weight has shape [32, 48], the architecture makes it [64, 48]",
    ),
    ({"head_dim": 8}, ".k_proj.weight has shape [32, 48], the architecture makes it [16, 48]"),
    (
        {"intermediate_size": 96},
        ".down_proj.weight has shape [48, 80], the architecture makes it [48, 96]",
    ),
)


@pytest.mark.parametrize(("changes", "expected"), BAD_CONFIGS)
def test_config_of_other_weights(changes, expected, folder):
    change_config(folder, layer_types=None, **changes)
    assert expected in refusal(folder)


def test_config_of_the_other_family(saved):
    name = "model.layers.0.self_attn.k_norm.weight"
    for family, other, expected in (
        ("gemma2", "gemma3", f": lacks tensor {name} (and 7 more)"),
        ("gemma3", "gemma2", f"/{FILE}: has unexpected tensor {name} (and 13 more)"),
    ):
        depth = TINY[family].num_layers
        config = dataclasses.replace(
            TINY[other], num_layers=depth, kinds=(TINY[other].kinds * 2)[:depth]
        )
        assert refusal(saved / family, config=config).startswith(expected)


PROTO = train_tokenizer(["one two three four five six seven"], 300)
PIECES = 300


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (b"", "is empty"),
        (b"\n" * 9, "not a sentencepiece model"),
        (PROTO[:-1], "not a sentencepiece model"),
        (PROTO.replace(b"<0xA7>", b"<0xA\xff>"), "not a sentencepiece model"),
        (PROTO.replace(b"<start_of_turn>", b"<beginning-of->"), "has no piece '<start_of_turn>'"),
        (PROTO.replace(b"<bos>", b"<BOS>"), "has no piece '<bos>'"),
    ],
)
def test_bad_tokenizers(proto, expected, folder):
    (folder / "tokenizer.model").write_bytes(proto)
    assert refusal(folder).startswith(f"/tokenizer.model: {expected}")


@pytest.mark.parametrize("extra", [-1, 129])
def test_tokenizer_of_another_model(extra, folder):
    change_one(folder, TABLE, lambda table: resized(table, PIECES + extra))
    change_config(folder, vocab_size=PIECES + extra)
    (folder / "tokenizer.model").write_bytes(PROTO)
    assert refusal(folder) == (
        f": the tokenizer has {PIECES} pieces, the embedding {PIECES + extra} rows; "
        "they belong to different models"
    )


@pytest.mark.parametrize("extra", [0, 1, 128])
def test_rows_beyond_the_tokenizer_are_dropped(extra, folder):
    change_one(folder, TABLE, lambda table: resized(table, PIECES + extra))
    change_config(folder, vocab_size=PIECES + extra)
    (folder / "tokenizer.model").write_bytes(PROTO)
    model = load_model(folder)
    assert model.config == dataclasses.replace(TINY3, vocab_size=PIECES)
    table = model.params["embedder"]["table"]
    whole = tiny_params("gemma3")
    np.testing.assert_array_equal(table, resized(whole["embedder"]["table"], PIECES))


def assert_loads(folder, dtype=None, family="gemma3"):
    """The directory holds the tiny parameters, bit for bit."""
    model = load_model(folder)
    assert model.config == TINY[family] and model.tokenizer is None
    params = tiny_params(family)
    assert_trees_equal(model.params, params if dtype is None else cast(params, dtype))


def cast(params, *dtypes):
    """The parameters rounded to one dtype after the other."""
    for dtype in dtypes:
        params = jax.tree.map(lambda x, dtype=dtype: np.asarray(x).astype(dtype), params)
    return params


@pytest.mark.parametrize("family", TINY)
def test_one_file(family, saved):
    assert_loads(saved / family, family=family)


def test_one_file_of_another_name(folder):
    (folder / FILE).rename(folder / "weights.safetensors")
    assert_loads(folder)


def test_shards(sharded, tmp_path):
    assert_loads(sharded)
    cache = (tmp_path / "blobs").resolve()
    cache.mkdir()
    for i, file in enumerate(sharded.glob("*.safetensors")):  # as the Hub's cache holds them
        file.rename(cache / str(i))
        file.symlink_to(cache / str(i))
    assert_loads(sharded)


def test_pickles_beside_the_weights_are_left_alone(folder):
    (folder / "pytorch_model.bin").write_bytes(PICKLE)
    assert_loads(folder)


@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", "model.language_model.", ""])
def test_prefixes(prefix, folder):
    change(folder, lambda w: {prefix + n.removeprefix("model."): x for n, x in w.items()})
    assert_loads(folder)


def test_tied_head(folder):
    change(folder, lambda weights: {**weights, HEAD: weights[TABLE]})
    assert_loads(folder)


@pytest.mark.parametrize("rows", [1, 128])
def test_rows_beyond_the_vocabulary_are_dropped(rows, folder):
    change_one(folder, TABLE, lambda table: resized(table, 96 + rows))
    assert_loads(folder)


def test_other_towers_are_passed_over(folder):
    content = (folder / FILE).read_bytes()
    for name, dtype, bits in (
        ("vision_tower.vision_model.embeddings.position_embedding.weight", "F64", 64),
        ("vision_tower.a", "F4", 4),
        ("vision_tower.b", "C64", 64),
        ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", "F8_E4M3", 8),
        ("multi_modal_projector.mm_input_projection_weight", "I64", 64),
        ("model.multi_modal_projector.mm_soft_emb_norm.weight", "U8", 8),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "BOOL", 8),
        ("model.rotary_emb_local.inv_freq", "F32", 32),
    ):
        content = with_extra(content, name, dtype, [2, 3, 4], b"\xff" * (24 * bits // 8))
    (folder / FILE).write_bytes(content)
    assert_loads(folder)


def test_float16_becomes_float32(folder):
    change(folder, lambda weights: {n: x.astype(np.float16) for n, x in weights.items()})
    assert_trees_equal(load_model(folder).params, cast(tiny_params("gemma3"), "f2", "f4"))


def test_dtypes(folder, tmp_path):
    params, bf16 = tiny_params("gemma3"), cast(tiny_params("gemma3"), ml_dtypes.bfloat16)
    assert_trees_equal(load_model(folder, dtype="float32").params, params)
    assert_trees_equal(load_model(folder, dtype="bfloat16").params, bf16)
    change(folder, lambda weights: {n: x.astype(ml_dtypes.bfloat16) for n, x in weights.items()})
    model = load_model(folder)
    assert_trees_equal(model.params, bf16)
    assert_trees_equal(load_model(folder, dtype="float32").params, cast(bf16, "f4"))
    assert_trees_equal(load_model(save_hf(model, tmp_path / "again")).params, bf16)
    with pytest.raises(ValueError, match="dtype='float16': expected one of"):
        load_model(folder, dtype="float16")
