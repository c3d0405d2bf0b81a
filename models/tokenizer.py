"""Gemma's sentencepiece tokenizers as they are: text in, ids out, <bos> exactly once.

Text is data. The strings of control tokens inside it ("<end_of_turn>" typed by a user or written by
a model) are encoded as ordinary characters, so that only code can end a turn; decoding gives the
same text back (but for "▁", sentencepiece's own sign for a space).
"""

import io
import pathlib
import re
from collections.abc import Iterable
from typing import SupportsInt

import sentencepiece

START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
# All pieces with a function; HTML tags and runs of white space keep their own pieces.
_CONTROL = re.compile(
    r"<(?:start|end)_of_(?:turn|image)>|<image_soft_token>|<mask>|<2mass>|<unused\d+>"
    r"|\[multimodal\]|\[@BOS@\]|\[toxicity=0\]"
)


class TokenizerError(ValueError):
    """A tokenizer that cannot be used; one line that names the file."""


class Tokenizer:
    """A sentencepiece model for the family "gemma2" or "gemma3"; `proto` is its file's content."""

    def __init__(self, proto: bytes, family: str | None = None, name: str = "tokenizer"):
        if not proto:  # sentencepiece would take it for no model at all, and say nothing
            raise TokenizerError(f"{name}: is empty, so it is not a sentencepiece model")
        self.proto = proto
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
            self.vocab_size = self._pieces.vocab_size()
            self._pieces.id_to_piece(list(range(self.vocab_size)))  # all of them can be read
        except (RuntimeError, IndexError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{name}: not a sentencepiece model ({error})") from None
        self.pad_id = self._special(name, "<pad>")
        self.eos_id = self._special(name, "<eos>")
        self.bos_id = self._special(name, "<bos>")
        self.start_of_turn_id = self._special(name, START_OF_TURN)
        self.end_of_turn_id = self._special(name, END_OF_TURN)
        if family not in (None, "gemma2", "gemma3"):
            raise TokenizerError(f"{name}: family={family!r}: expected 'gemma2' or 'gemma3'")
        self.family = family or ("gemma2" if self.start_of_turn_id == 106 else "gemma3")

    @classmethod
    def load(cls, path: str | pathlib.Path, family: str | None = None) -> "Tokenizer":
        """Reads a `tokenizer.model`, or the one in a directory."""
        path = pathlib.Path(path)
        path = path / "tokenizer.model" if path.is_dir() else path
        if not path.is_file():
            raise TokenizerError(f"{path}: no such file (expected a sentencepiece model)")
        return cls(path.read_bytes(), family, str(path))

    def _special(self, name: str, piece: str) -> int:
        token = self._pieces.piece_to_id(piece)
        if self._pieces.id_to_piece(token) != piece:
            raise TokenizerError(f"{name}: has no piece {piece!r}, so it is not a Gemma tokenizer")
        return token

    @property
    def stop_ids(self) -> tuple[int, int]:
        """What ends a completion: the end of the text or of the turn."""
        return (self.eos_id, self.end_of_turn_id)

    def differs_from(self, other: "Tokenizer") -> str:
        """The first id that is another piece there; "" if all that both have are the same."""
        for token in range(min(self.vocab_size, other.vocab_size)):
            here, there = (x._pieces.id_to_piece(token) for x in (self, other))
            if here != there:
                return f"id {token} is {there!r}, not {here!r}"
        return ""

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """The ids of a text, after one <bos> unless `bos` is False."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(f"text has a lone surrogate at character {error.start}") from None
        ids = [self.bos_id] if bos else []
        for part in self._without_control(text):
            ids += self._pieces.encode(part)
        return ids

    def _without_control(self, text: str) -> Iterable[str]:
        """The text, cut after the first character of each control token's string."""
        start = 0
        for match in _CONTROL.finditer(text):
            token = self._pieces.piece_to_id(match[0])
            if self._pieces.id_to_piece(token) == match[0]:
                yield text[start : match.start() + 1]
                start = match.start() + 1
        yield text[start:]

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some ids; <pad>, <bos> and <eos> have none."""
        ids = [int(token) for token in ids]
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise TokenizerError(f"token id {token} is outside 0 .. {self.vocab_size - 1}")
        return self._pieces.decode(ids)


def train_tokenizer(texts: Iterable[str], vocab_size: int, whole: Iterable[str] = ()) -> bytes:
    """A Gemma-like tokenizer (BPE, single digits, byte fallback) of up to `vocab_size` pieces.

    Each text of `whole` is one of them wherever it occurs.
    """
    texts, proto = list(texts), io.BytesIO()
    options = {
        "model_type": "bpe",
        "vocab_size": vocab_size,
        "hard_vocab_limit": False,
        "character_coverage": 1.0,
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": [START_OF_TURN, END_OF_TURN, "\n", "\n\n", *whole],
        "num_threads": 1,
        "minloglevel": 2,
    }
    for token, name in enumerate(("pad", "eos", "bos", "unk")):
        options |= {f"{name}_id": token, f"{name}_piece": f"<{name}>"}
    try:
        # The trainer would pass over texts longer than its limit.
        longest = max(len(text.encode()) for text in texts)
        options["max_sentence_length"] = max(longest + 1, 4096)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=proto, **options
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TokenizerError(
            f"no tokenizer of {vocab_size} pieces from these texts: {reason}"
        ) from None
    return proto.getvalue()
