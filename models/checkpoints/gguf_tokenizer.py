"""A GGUF file's list of tokens -> the sentencepiece model that it was made of.

llama.cpp's converters change what has a function: control and user-defined pieces get the score
-1000, <unk> and all that looks like <a tag> is "control", and runs of "▁" become spaces; older ones
leave user-defined pieces normal, with the score +0.0 that no piece of the merge list has (its first
has -0.0). Gemma's own models have three control pieces, <unk>, bytes, pieces that were merged, and
user-defined ones, and so has what is made here. Names stay the file's: Gemma 3's from 256,000 on
are those of Hugging Face, which begin with <end_of_image> where the original has <unused99>.
Written in protobuf's format by hand, field numbers as in sentencepiece_model.proto.
"""

import array
import reprlib
import struct

import numpy as np

from models.checkpoints.files import CheckpointError
from models.checkpoints.gguf_header import Header
from models.checkpoints.hf_config import PADDED_VOCAB
from models.tokenizer import Tokenizer, TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
OWN_TYPES = {"<pad>": CONTROL, "<eos>": CONTROL, "<bos>": CONTROL, "<unk>": UNKNOWN}


def read_tokenizer(header: Header, family: str) -> Tokenizer:
    """The tokenizer that a file holds."""
    try:
        return Tokenizer(_proto(header), family, str(header.file))
    except TokenizerError as error:
        raise CheckpointError(str(error)) from None


def _proto(header: Header) -> bytes:
    """The sentencepiece model as bytes."""
    tokens, scores, types = _lists(header)
    plain_zero = (types == NORMAL) & (scores == 0) & ~np.signbit(scores)
    types = np.where((types == CONTROL) | plain_zero, USER_DEFINED, types)
    scores = np.where((types == NORMAL) | (types == UNUSED), scores, np.float32(0))
    proto: list[bytes] = []
    ids: dict[tuple[int, str], int] = {}
    for i, (token, score, stored) in enumerate(zip(tokens, scores, types.tolist(), strict=True)):
        kind = OWN_TYPES[token] if token in OWN_TYPES else int(stored)
        ids[kind, token] = i
        piece = _text(1, token.replace(" ", "▁")) + struct.pack("<Bf", 2 << 3 | 5, score)
        proto.append(_nested(1, piece if kind == NORMAL else piece + _whole(3, kind)))
    proto.append(_nested(2, _trainer(len(tokens), ids)))
    # No normalisation: no space in front, none removed; spaces are written "▁".
    proto.append(_nested(3, _text(1, "identity") + _whole(3, 0) + _whole(4, 0) + _whole(5, 1)))
    return b"".join(proto)


def _lists(header: Header) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Tokens, scores and types, without the rows of padding that some files list as tokens."""
    model, tokens = (header.fields.get(f"tokenizer.ggml.{name}") for name in ("model", "tokens"))
    if model != "llama":
        found = reprlib.repr(model)
        raise header.fail(f"tokenizer.ggml.model={found}: expected 'llama', which Gemma's is")
    if not isinstance(tokens, list) or not tokens:
        raise header.fail("tokenizer.ggml.tokens: expected a list of texts")
    scores = _numbers(header, "scores", "f", len(tokens))
    types = _numbers(header, "token_type", "i", len(tokens))
    if not np.isfinite(scores).all():
        raise header.fail("tokenizer.ggml.scores: expected finite numbers")
    if not np.isin(types, range(NORMAL, BYTE + 1)).all():
        raise header.fail(f"tokenizer.ggml.token_type: expected {NORMAL} to {BYTE}")
    end = PADDED_VOCAB.get(len(tokens), len(tokens))
    return tokens[:end], scores[:end], types[:end]


def _numbers(header: Header, name: str, code: str, length: int) -> np.ndarray:
    """One number for each token."""
    values = header.fields.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, array.array) or values.typecode != code:
        raise header.fail(f"tokenizer.ggml.{name}: expected a list of {np.dtype(code)}")
    if len(values) != length:
        raise header.fail(
            f"tokenizer.ggml.{name} has {len(values)} items, tokenizer.ggml.tokens {length}"
        )
    return np.array(values)


def _trainer(vocab_size: int, ids: dict) -> bytes:
    """What of the training says how to encode: BPE, single digits, bytes for what is unknown."""
    flags = b"".join(_whole(field, 1) for field in (25, 26, 35))
    parts = [_whole(3, 2), _whole(4, vocab_size), flags]
    for field, (token, kind) in zip((43, 42, 41, 40), OWN_TYPES.items(), strict=True):
        parts += [_whole(field, ids.get((kind, token), 0)), _text(field + 5, token)]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    out = []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _whole(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _nested(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _nested(field, text.encode())
