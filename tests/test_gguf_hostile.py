"""GGUF files that lie: one line that names the file, at once, and nothing large is made for it."""

import struct
import time
import tracemalloc

import numpy as np
import pytest

from models import load_model
from models.checkpoints.files import CheckpointError
from models.checkpoints.gguf_header import MOST, read_header
from tests.gguf_files import KINDS, text, tiny_file, value_of

HUGE = 2**64 - 1
Q, NORM, TABLE = "blk.0.attn_q.weight", "output_norm.weight", "token_embd.weight"
TOKENS = "tokenizer.ggml.tokens"


def set_field(name, *kind_and_value):
    """A file with a field of this value, or without it."""
    return lambda file: file.change(name, *kind_and_value)


def raw_field(name, content):
    """A file with a field of these bytes."""
    return lambda file: file.fields.append((name, content))


def set_attribute(name, value):
    """A file whose header says so."""
    return lambda file: setattr(file, name, value)


def set_tensor(name, *, rename=None, sizes=None, kind=None, content=None):
    """A file in which a tensor is otherwise."""

    def edit(file):
        for i, (there, old_sizes, old_kind, old_content) in enumerate(file.tensors):
            if there == name:
                file.tensors[i] = (
                    rename or there,
                    old_sizes if sizes is None else sizes,
                    old_kind if kind is None else kind,
                    old_content if content is None else content(old_content),
                )

    return edit


def set_offset(name, offset):
    """A file in which a tensor is said to lie elsewhere."""
    return lambda file: file.offsets.update({name: offset})


def without(name):
    """A file that lacks a tensor."""

    def edit(file):
        file.tensors = [tensor for tensor in file.tensors if tensor[0] != name]

    return edit


def poked(content):
    """The bytes of float32 values with a NaN."""
    values = np.frombuffer(content, "<f4").copy()
    values[5] = np.nan
    return values.tobytes()


def twice(file):
    file.tensors.append(file.tensors[-1])


def nested_lists(depth):
    """A field that is a list of a list of a list ..."""
    content = struct.pack("<I", KINDS["list"])
    content += struct.pack("<IQ", KINDS["list"], 1) * depth
    return raw_field("a", content + struct.pack("<IQ", 0, 0))


def list_head(item, count):
    """The type and length of a list, and nothing of it."""
    return struct.pack("<IIQ", KINDS["list"], item, count)


FILES = {  # what is done to a whole file, and what is said of it
    "version 1": (set_attribute("version", b"\1\0\0\0"), ": GGUF version 1; 2 and 3 are read"),
    "version 4": (set_attribute("version", b"\4\0\0\0"), ": GGUF version 4; 2 and 3 are read"),
    "version 0": (set_attribute("version", b"\0\0\0\0"), ": GGUF version 0; 2 and 3 are read"),
    "big-endian": (set_attribute("version", b"\0\0\0\3"), ": a big-endian GGUF file; only"),
    "many fields": (set_attribute("num_fields", HUGE), f": 93 tensors and {HUGE} fields; at most"),
    "four billion fields": (set_attribute("num_fields", 2**32), ": 93 tensors and 4294967296 fiel"),
    "many tensors": (set_attribute("num_tensors", 2**62), f": {2**62} tensors and "),
    "tensors beyond the end": (set_attribute("num_tensors", 2**16), ": "),
    "a field more": (set_attribute("num_fields", 17), ": "),
    "a field less": (set_attribute("num_fields", 10), ": "),
    "a tensor more": (set_attribute("num_tensors", 99), ": "),
    "a field twice": (raw_field("tokenizer.ggml.model", value_of("text", "llama")), ": has field"),
    "a long name": (raw_field("a" * 129, b""), ": a field's name is 129 bytes long; at most 128"),
    "an unknown type": (raw_field("a", struct.pack("<I", 13)), ": field 'a' is of unknown type 13"),
    "a huge text": (
        raw_field("a", struct.pack("<IQ", 8, HUGE)),
        f": field 'a' is {HUGE} bytes long; at most {MOST} are read",
    ),
    "a text beyond the end": (
        raw_field("a", struct.pack("<IQ", 8, MOST)),
        f": cut off or damaged: field 'a' needs {MOST} bytes",
    ),
    "not UTF-8": (raw_field("a", value_of("text", b"\xff\xfe")), ": field 'a' is not UTF-8"),
    "a name not UTF-8": (raw_field(b"\xff", value_of("u8", 1)), ": a field's name is not UTF-8"),
    "a huge list": (
        raw_field("a", list_head(4, 2**32)),
        f": field 'a' has {2**32} items; at most {MOST} are read",
    ),
    "a list beyond the end": (
        raw_field("a", list_head(10, MOST)),
        f": cut off or damaged: field 'a' needs {8 * MOST} bytes",
    ),
    "texts beyond the end": (
        raw_field("a", list_head(8, MOST)),
        f": cut off or damaged: field 'a' needs {8 * MOST} bytes",
    ),
    "a list of unknown type": (raw_field("a", list_head(77, 0)), ": field 'a' is a list of unkn"),
    "a list of lists": (nested_lists(1), ": field 'a' is a list of lists, which no model needs"),
    "deep lists": (nested_lists(50_000), ": field 'a' is a list of lists, which no model needs"),
    "alignment 0": (
        set_field("general.alignment", "u32", 0),
        ": general.alignment=0: expected a power of two",
    ),
    "alignment 24": (set_field("general.alignment", "u32", 24), ": general.alignment=24: expected"),
    "alignment as a text": (set_field("general.alignment", "text", "32"), ": general.alignment='3"),
    "a huge alignment": (
        set_field("general.alignment", "u64", 2**63),
        f": general.alignment={2**63}: expected",
    ),
    "the other family": (
        set_field("general.architecture", "text", "gemma2"),
        ": gemma2: block_count=None: expected a positive whole number below 1000",
    ),
    "another family": (
        set_field("general.architecture", "text", "llama"),
        ": general.architecture='llama': expected one of gemma2, gemma3",
    ),
    "a family that is none": (
        set_field("general.architecture", "list u32", [1, 2]),
        ": general.architecture=array('I', [1, 2]): expected one of",
    ),
    "a long family": (
        set_field("general.architecture", "text", "g" * 10**6),
        ": general.architecture='gggg",
    ),
    "a long alignment": (
        set_field("general.alignment", "list u32", [32] * 10**5),
        ": general.alignment=array('I', [32, 32, 32, 32, 32, ...]): expected",
    ),
    "a long name of a tensor": (
        set_tensor(Q, rename="q" * 129),
        ": a tensor's name is 129 bytes long; at most 128 are read",
    ),
    "parts in a list": (
        set_field("split.count", "list u32", [1] * 10**5),
        ": one of array('I', [1, 1, 1, 1, 1, ...]) parts; join",
    ),
    "no family": (set_field("general.architecture"), ": general.architecture=None: expected one"),
    "a part of several": (
        set_field("split.count", "u32", 3),
        ": one of 3 parts; join them with llama-gguf-split --merge",
    ),
    "no block_count": (set_field("gemma3.block_count"), ": gemma3: block_count=None: expected"),
    "many layers": (set_field("gemma3.block_count", "u32", 2**32 - 1), ": gemma3: block_count=429"),
    "layers as a text": (set_field("gemma3.block_count", "text", "7"), ": gemma3: block_count='7'"),
    "layers as a float": (set_field("gemma3.block_count", "f32", 7.0), ": gemma3: block_count=7.0"),
    "layers as a truth": (set_field("gemma3.block_count", "bool", True), ": gemma3: block_count=T"),
    "layers as a list": (
        set_field("gemma3.block_count", "list u32", [7] * 9000),
        ": gemma3: block_count=array(",
    ),
    "no heads": (set_field("gemma3.attention.head_count", "u32", 0), ": gemma3: attention.head_co"),
    "three heads": (
        set_field("gemma3.attention.head_count", "u32", 3),
        ": num_heads=3: not a multiple of num_kv_heads=2",
    ),
    "NaN": (
        set_field("gemma3.attention.layer_norm_rms_epsilon", "f32", float("nan")),
        ": gemma3: attention.layer_norm_rms_epsilon=nan: expected a positive number",
    ),
    "infinity": (
        set_field("gemma3.rope.freq_base", "f32", float("inf")),
        ": gemma3: rope.freq_base=inf: expected a positive number",
    ),
    "values of another width": (
        set_field("gemma3.attention.value_length", "u32", 32),
        ": gemma3: attention.value_length=32: expected what attention.key_length is",
    ),
    "another pattern": (
        set_field("gemma3.attention.sliding_window_pattern", "u32", 4),
        ": gemma3: attention.sliding_window_pattern=4: expected 6, the family's",
    ),
    "patterns in a list": (
        set_field("gemma3.attention.sliding_window_pattern", "list bool", [True, False]),
        ": gemma3: attention.sliding_window_pattern=array('B', [1, 0]): expected 6",
    ),
    "scores of another scale": (
        set_field("gemma3.attention.scale", "f32", 0.5),
        ": gemma3: attention.scale=0.5: expected none: the model's sizes say it",
    ),
    "widths in a list": (
        set_field("gemma3.rope.dimension_count", "list u32", [16, 16]),
        ": gemma3: rope.dimension_count=array('I', [16, 16]): expected what",
    ),
    "scalings in a list": (
        set_field("gemma3.rope.scaling.type", "list u32", [16, 16]),
        ": gemma3: rope.scaling.type=array('I', [16, 16]): expected 'none' or",
    ),
    "soft-capped scores": (
        set_field("gemma3.attn_logit_softcapping", "f32", 50.0),
        ": gemma3: attn_logit_softcapping=50.0: expected none",
    ),
    "another scaling": (
        set_field("gemma3.rope.scaling.type", "text", "yarn"),
        ": gemma3: rope.scaling.type='yarn': expected 'none' or 'linear'",
    ),
    "no tokenizer": (set_field("tokenizer.ggml.model"), ": tokenizer.ggml.model=None: expected"),
    "another tokenizer": (
        set_field("tokenizer.ggml.model", "text", "gpt2"),
        ": tokenizer.ggml.model='gpt2': expected 'llama'",
    ),
    "tokenizers in a list": (
        set_field("tokenizer.ggml.model", "list u32", [1] * 10**5),
        ": tokenizer.ggml.model=array('I', [1, 1, 1, 1, 1, ...]): expected 'llama'",
    ),
    "no tokens": (set_field(TOKENS), f": {TOKENS}: expected a list of texts"),
    "empty tokens": (set_field(TOKENS, "list text", []), f": {TOKENS}: expected a list of texts"),
    "numbers for tokens": (set_field(TOKENS, "list u32", [1]), f": {TOKENS}: expected a list of t"),
    "one token": (
        set_field(TOKENS, "list text", ["<pad>"]),
        f": tokenizer.ggml.scores has 320 items, {TOKENS} 1",
    ),
    "equal tokens": (
        set_field(TOKENS, "list text", ["<pad>"] * 320),
        ": not a sentencepiece model",
    ),
    "a long token": (
        set_field(TOKENS, "list text", ["x" * 20_000, *map(str, range(319))]),
        ": not a sentencepiece model (INTERNAL: piece is too long.)",
    ),
    "a token not UTF-8": (
        set_field(TOKENS, "list text", [b"\xc3"]),
        f": field '{TOKENS}' is not UTF-8",
    ),
    "no scores": (set_field("tokenizer.ggml.scores"), ": tokenizer.ggml.scores: expected a list"),
    "few scores": (
        set_field("tokenizer.ggml.scores", "list f32", [0.0]),
        f": tokenizer.ggml.scores has 1 items, {TOKENS} 320",
    ),
    "NaN for scores": (
        set_field("tokenizer.ggml.scores", "list f32", [float("nan")] * 320),
        ": tokenizer.ggml.scores: expected finite numbers",
    ),
    "whole scores": (
        set_field("tokenizer.ggml.scores", "list i32", [0] * 320),
        ": tokenizer.ggml.scores: expected a list of float32",
    ),
    "unknown token types": (
        set_field("tokenizer.ggml.token_type", "list i32", [7] * 320),
        ": tokenizer.ggml.token_type: expected 1 to 6",
    ),
    "nothing but control": (
        set_field("tokenizer.ggml.token_type", "list i32", [3] * 320),
        ": not a sentencepiece model",
    ),
    "a tensor twice": (twice, ": has tensor blk.6.ffn_norm.weight twice"),
    "no axes": (set_tensor(Q, sizes=[]), f": tensor {Q} has 0 axes; 1 to 4 are read"),
    "many axes": (set_tensor(Q, sizes=[1] * 5), f": tensor {Q} has 5 axes; 1 to 4 are read"),
    "no row": (set_tensor(Q, sizes=[48, 0]), f": tensor {Q} has rows of 48 of [48, 0]"),
    "empty rows": (set_tensor(Q, sizes=[0, 64]), f": tensor {Q} has rows of 0 of [0, 64]"),
    "a size of 2**64 - 1": (set_tensor(Q, sizes=[HUGE, 1]), f": cut off or damaged: tensor {Q} en"),
    "a product of 2**64": (
        set_tensor(Q, sizes=[2**32, 2**32]),
        f": cut off or damaged: tensor {Q} ends at byte",
    ),
    "a product of 2**128": (
        set_tensor(Q, sizes=[2**62, 4, 2**62, 4]),
        f": cut off or damaged: tensor {Q} ends at byte",
    ),
    "Q2_K": (set_tensor(Q, kind=10), f": tensor {Q} is Q2_K; what is read is F32, F16, Q4_0"),
    "I32": (set_tensor(Q, kind=26), f": tensor {Q} is I32; what is read is F32"),
    "a type that there is not": (set_tensor(Q, kind=99), f": tensor {Q} is of unknown type 99; wh"),
    "broken blocks": (set_tensor(Q, kind=8), f": tensor {Q} has rows of 48 of [48, 64]; Q8_0 nee"),
    "an odd offset": (set_offset(NORM, 7), f": tensor {NORM} at 7: no multiple of 32"),
    "an offset at the end": (set_offset(NORM, 2**40), f": cut off or damaged: tensor {NORM} ends"),
    "the largest offset": (set_offset(NORM, HUGE - 31), f": cut off or damaged: tensor {NORM} end"),
    "overlapping tensors": (set_offset(NORM, 32), f": tensors {TABLE} and {NORM} overlap"),
    "the same place": (set_offset(NORM, 0), ": tensors "),
    "a missing tensor": (without(Q), f": lacks tensor {Q}; is this the architecture of these"),
    "no table": (without(TABLE), f": lacks tensor {TABLE}"),
    "a surplus tensor": (
        set_tensor(Q, rename="rope_freqs.weight"),
        f": lacks tensor {Q}; is this the architecture",
    ),
    "a turned tensor": (
        set_tensor(Q, sizes=[64, 48]),
        f": tensor {Q} has shape [48, 64], the architecture makes it [64, 48]",
    ),
    "a table of few rows": (
        set_tensor(TABLE, sizes=[48, 319]),
        ": the tokenizer has 320 pieces, the embedding 319 rows; they belong to different",
    ),
    "a table of one axis": (
        set_tensor(TABLE, sizes=[320]),
        f": tensor {TABLE} has shape [320], the architecture makes it [320, 48]",
    ),
    "NaN in a matrix": (
        set_tensor("blk.3.ffn_up.weight", content=poked),
        ": tensor blk.3.ffn_up.weight is not finite at (0, 5)",
    ),
}


@pytest.fixture
def whole():
    """A whole file to damage, of Gemma 3."""
    file, _, _ = tiny_file("gemma3")
    return file


def refusal(path):
    """The one line that is said, in a moment, and with little memory taken."""
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    seconds, (_, peak) = time.monotonic() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 300 and seconds < 5 and peak < 2**24
    return message.removeprefix(str(path))


@pytest.mark.parametrize("name", FILES)
def test_files_that_lie(name, whole, tmp_path):
    edit, expected = FILES[name]
    edit(whole)
    assert refusal(whole.write(tmp_path / "a.gguf")).startswith(expected)


def test_an_output_matrix_of_its_own(whole, tmp_path):
    name, sizes, kind, content = whole.tensors[0]
    assert name == TABLE
    whole.tensors.append(("output.weight", sizes, kind, content[:-4] + content[:4]))
    expected = f": output.weight differs from {TABLE}, but Gemma's are tied"
    assert refusal(whole.write(tmp_path / "a.gguf")) == expected
    whole.tensors[-1] = ("output.weight", [48, 64], kind, content[: 48 * 64 * 4])
    assert refusal(whole.write(tmp_path / "b.gguf")) == expected


def test_the_place_of_a_value_in_a_large_table(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("models.checkpoints.gguf.AT_ONCE", 7 * 48)
    values = np.frombuffer(whole.tensors[0][3], "<f4").copy().reshape(320, 48)
    values[100, 7] = np.inf
    set_tensor(TABLE, content=lambda _: values.tobytes())(whole)
    expected = f": tensor {TABLE} is not finite at (100, 7)"
    assert refusal(whole.write(tmp_path / "a.gguf")) == expected


def test_no_gguf_file_at_all(tmp_path):
    path = tmp_path / "a.gguf"
    assert refusal(path) == ": no such file, and not `owner/name/FILE.gguf` of the Hub"
    for content in (b"", b"GGU", b"GGML" * 9, b"FUGG" + bytes(99), bytes(99), b"PK\3\4", b"\x80\4"):
        path.write_bytes(content)
        assert refusal(path) == ": not a GGUF file (it does not begin with GGUF)"
    path.write_bytes(b"GGUF")
    assert refusal(path).startswith(": cut off or damaged: the next number needs 4 bytes, 0 are")
    with pytest.raises(CheckpointError, match=r"a\.gguf: a local file has no revision 'main'\Z"):
        load_model(path, revision="main")


def test_a_file_cut_anywhere(whole, tmp_path):
    """Every byte of the first fields, and some of all the others."""
    content = whole.write(tmp_path / "whole.gguf").read_bytes()
    begin = len(whole.header())
    cuts = [*range(4, 400), *range(400, begin, 97), *range(begin, len(content), 4999)]
    for cut in [*cuts, len(content) - 32]:
        path = tmp_path / "a.gguf"
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"a\.gguf: cut off or damaged: [^\n]*\Z"):
            read_header(path)


def test_any_byte_of_the_header_may_be_another(whole, tmp_path):
    """Whatever it then says, it is read or refused in one line."""
    content = bytearray(whole.write(tmp_path / "whole.gguf").read_bytes())
    random, path = np.random.RandomState(0), tmp_path / "a.gguf"
    for place in random.permutation(len(whole.header()))[:400]:
        before, content[place] = content[place], random.randint(256)
        path.write_bytes(content)
        content[place] = before
        try:
            read_header(path)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1


def test_a_text_has_its_length():
    assert text("ж") == b"\2\0\0\0\0\0\0\0\xd0\xb6"
