"""What the text tests run on: small trained tokenizers, and Gemma's own where they are at hand.

"marked" is "trained" with the control, markup and whitespace pieces that Gemma's own have as well.
Gemma's sentencepiece models are not part of this project. They are looked for beside it, in
../shared/data/tokenizers; tests that need them skip, with that reason, where they are absent.
"""

import functools
import pathlib
import re

import pytest
import sentencepiece

from models.tokenizer import Tokenizer, train_tokenizer

GOLDEN = pathlib.Path(__file__).parent / "chat_golden.json"
KINDS = ("trained", "marked", "gemma2", "gemma3")
CORPUS = [
    "In 2024 there were 2024 apples in the basket; in 2025 there were 2025.",
    "The model answers the user, and the user answers the model.\n\nThen they start again.\n",
    "def answer(question):\n        return question\n\n        # deep\n\n\nÄpfel, ж\n",
] * 4
TRAINED_SIZE = 360
MARKS = ["<mask>", "<2mass>", "[@BOS@]", "[multimodal]", "[toxicity=0]", "<unused7>", "<unused42>"]
MARKS += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
MARKS += ["<table>", "</code>", "\n" * 3, "\n" * 31, "\t" * 2, "▁" * 31]
# What is written like a control token in Gemma's vocabularies, and is not one.
HTML = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|t[rhd]|h[1-6]|blockquote|strong|em|[bius]|su[bp]|code"
    r"|a|html|body|img|span|bbox|ul|li|div|iframe|footer)>"
)


def real_file(family: str) -> pathlib.Path:
    """Where the sentencepiece model of a family lies, if it does."""
    root = pathlib.Path(__file__).resolve().parents[2]
    return root.parent / "shared" / "data" / "tokenizers" / f"tokenizer_{family}.model"


def with_marks(proto: bytes) -> bytes:
    """A sentencepiece model with MARKS as further user-defined pieces."""
    for mark in MARKS:  # protobuf reads repeated fields in pieces: 1 is the list, then a text (1)
        text = mark.encode()  # and a type (3), which is 4
        piece = b"\x0a%c%b\x18\x04" % (len(text), text)
        proto += b"\x0a%c%b" % (len(piece), piece)
    return proto


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    """The tokenizer of a kind; skips the test where a real one is absent."""
    if kind == "trained":
        return Tokenizer(train_tokenizer(CORPUS, TRAINED_SIZE))
    if kind == "marked":
        return Tokenizer(with_marks(tokenizer("trained").proto))
    if not real_file(kind).is_file():
        pytest.skip(f"needs {kind}'s own tokenizer at ../shared/data/tokenizers beside the project")
    return Tokenizer.load(real_file(kind))


@functools.cache
def raw(kind: str) -> sentencepiece.SentencePieceProcessor:
    """The same model, as sentencepiece alone reads it."""
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer(kind).proto)


@functools.cache
def control_pieces(kind: str) -> dict[str, int]:
    """Pieces in brackets, with a letter between them, that are neither HTML nor bytes, and ids."""
    pieces = {raw(kind).id_to_piece(i): i for i in range(raw(kind).vocab_size())}
    looks = re.compile(r"<[^<>]*[A-Za-z][^<>]*>|\[[^\[\]]*[A-Za-z][^\[\]]*\]")
    return {
        piece: token
        for piece, token in pieces.items()
        if looks.fullmatch(piece) and not HTML.fullmatch(piece) and not raw(kind).is_byte(token)
    }
