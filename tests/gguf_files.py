"""GGUF files for tests, written by hand: any fields and tensors, and tiny models in float."""

import dataclasses
import pathlib
import struct

import jax
import numpy as np
import sentencepiece

from models.checkpoints import gguf
from models.checkpoints.layout import sizes, to_theirs
from models.config import GemmaConfig
from models.gemma import param_shapes
from models.sharding import path_name
from models.tokenizer import Tokenizer, train_tokenizer
from tests.helpers import TINY
from tests.references.chat_tokenizers import CORPUS

KINDS = {"u8": 0, "i32": 5, "u32": 4, "f32": 6, "bool": 7, "text": 8, "list": 9, "u64": 10}
CODES = {0: "B", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 12: "d"}
DTYPES = {"<f4": 0, "<f2": 1, "<u2": 30}  # float32, float16 and bfloat16's bits


def text(value: str | bytes) -> bytes:
    """A text with its length."""
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def value_of(kind: str, value) -> bytes:
    """A field's type and value; `list u32` is a list."""
    if kind.startswith("list "):
        item = KINDS[kind.removeprefix("list ")]
        head = struct.pack("<IIQ", KINDS["list"], item, len(value))
        if item == KINDS["text"]:
            return head + b"".join(map(text, value))
        return head + struct.pack(f"<{len(value)}{CODES[item]}", *value)
    number = KINDS[kind]
    return struct.pack("<I", number) + (
        text(value) if kind == "text" else struct.pack("<" + CODES[number], value)
    )


@dataclasses.dataclass
class File:
    """What is in a GGUF file; each part may be something that no writer would write."""

    fields: list[tuple[str, bytes]]  # (name, type and value)
    tensors: list[tuple[str, list[int], int, bytes]]  # (name, sizes, type, content)
    version: bytes = b"\x03\x00\x00\x00"
    alignment: int = 32
    num_fields: int | None = None  # what the header says
    num_tensors: int | None = None
    offsets: dict[str, int] = dataclasses.field(default_factory=dict)

    def change(self, name: str, *kind_and_value) -> None:
        """Sets a field, or removes it where nothing follows."""
        self.fields = [(n, v) for n, v in self.fields if n != name]
        if kind_and_value:
            self.fields.append((name, value_of(*kind_and_value)))

    def header(self) -> bytes:
        """All that stands before the tensors' contents."""
        counts = (
            len(self.tensors) if self.num_tensors is None else self.num_tensors,
            len(self.fields) if self.num_fields is None else self.num_fields,
        )
        out = [b"GGUF", self.version, struct.pack("<QQ", *counts)]
        out += [text(name) + value for name, value in self.fields]
        offset = 0
        for name, shape, number, content in self.tensors:
            place = self.offsets.get(name, offset)
            out.append(text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            out.append(struct.pack("<IQ", number, place))
            offset += self.padded(content)
        return b"".join(out)

    def padded(self, content: bytes) -> int:
        """The bytes that a content takes with what is behind it."""
        return -(-len(content) // self.alignment) * self.alignment

    def write(self, path: pathlib.Path) -> pathlib.Path:
        """Writes it all."""
        out = self.header()
        out += bytes(-len(out) % self.alignment)
        for *_, content in self.tensors:
            out += content + bytes(self.padded(content) - len(content))
        path.write_bytes(out)
        return path


def llama_cpp_tokens(tokenizer: Tokenizer, style: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Tokens, scores and types as llama.cpp's converters write them: the new one, the old one."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.proto)
    ids = list(range(pieces.vocab_size()))
    tokens, scores = pieces.id_to_piece(ids), np.array(pieces.get_score(ids), np.float32)
    types = np.ones(len(ids), np.int32)
    for number, flags in ((2, pieces.is_unknown), (3, pieces.is_control), (6, pieces.is_byte)):
        types[np.array(flags(ids))] = number
    if style == "old":
        return tokens, scores, types
    own = (types == 1) & (scores == 0) & ~np.signbit(scores) | (types == 2) | (types == 3)
    for i in np.flatnonzero(own):
        tag = tokens[i].startswith("<") and tokens[i].endswith(">") and len(tokens[i]) > 2
        tokens[i] = tokens[i] if tag else tokens[i].replace("▁", " ")
        scores[i], types[i] = -1000, 3 if tag else 4
    return tokens, scores, types


def tiny_config(family: str, vocab_size: int) -> GemmaConfig:
    """The tiny model, with the query scalar that a GGUF file means."""
    config = TINY[family]
    return dataclasses.replace(config, vocab_size=vocab_size, query_scalar=config.head_dim)


def drawn_params(config: GemmaConfig):
    """Parameters that bfloat16 holds, and norms whose 1 + scale it holds too."""
    random = np.random.RandomState(3)

    def draw(x):
        return (random.randint(-32, 32, x.shape) / 128).astype(np.float32)

    return jax.tree.map(draw, param_shapes(config, np.float32))


def fields_of(config: GemmaConfig, tokenizer: Tokenizer) -> list[tuple[str, bytes]]:
    """The fields that llama.cpp's converter writes of a model, and few that it does not."""
    tokens, scores, types = llama_cpp_tokens(tokenizer, "new")
    own = {
        "context_length": ("u32", config.max_positions),
        "embedding_length": ("u32", config.width),
        "block_count": ("u32", config.num_layers),
        "feed_forward_length": ("u32", config.ffn_width),
        "attention.head_count": ("u32", config.num_heads),
        "attention.head_count_kv": ("u32", config.num_kv_heads),
        "attention.key_length": ("u32", config.head_dim),
        "attention.value_length": ("u32", config.head_dim),
        "attention.layer_norm_rms_epsilon": ("f32", config.norm_eps),
        "attention.sliding_window": ("u32", config.window),
    }
    if config.family == "gemma2":
        own["attn_logit_softcapping"] = ("f32", config.attention_softcap)
        own["final_logit_softcapping"] = ("f32", config.logit_softcap)
    else:
        own["rope.freq_base"] = ("f32", config.global_theta)
        own["rope.scaling.type"] = ("text", "linear")
        own["rope.scaling.factor"] = ("f32", config.global_rope_factor)
    return [
        ("general.architecture", value_of("text", config.family)),
        *((f"{config.family}.{name}", value_of(*value)) for name, value in own.items()),
        ("tokenizer.ggml.model", value_of("text", "llama")),
        ("tokenizer.ggml.tokens", value_of("list text", tokens)),
        ("tokenizer.ggml.scores", value_of("list f32", scores.tolist())),
        ("tokenizer.ggml.token_type", value_of("list i32", types.tolist())),
        ("tokenizer.ggml.add_bos_token", value_of("bool", True)),
    ]


def tiny_file(family: str, dtype: str = "<f4") -> tuple[File, GemmaConfig, dict]:
    """A tiny model as a file, its architecture, its parameters."""
    tokenizer = Tokenizer(train_tokenizer(CORPUS, 320), family)
    config = tiny_config(family, tokenizer.vocab_size)
    params = drawn_params(config)
    return File(fields_of(config, tokenizer), tensors_of(config, params, dtype)), config, params


def tensors_of(config: GemmaConfig, params, dtype: str) -> list[tuple[str, list[int], int, bytes]]:
    """Parameters as a file's tensors: matrices of a dtype, norms of float32."""
    arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    tensors = []
    for (leaf, layer), (name, pattern) in gguf.tensor_names(config).items():
        array = arrays[leaf] if layer is None else arrays[f"layers/{leaf}"][layer]
        values = np.ascontiguousarray(to_theirs(array, pattern, sizes(config)), "<f4")
        form = dtype
        if leaf.endswith("/scale"):
            values, form = values + np.float32(1), "<f4"
        content = (values.view("<u4") >> 16) if form == "<u2" else values
        content = content.astype(form).tobytes()
        tensors.append((name, list(values.shape[::-1]), DTYPES[form], content))
    return tensors
