"""Teachers that are models of their own: what they must have in common with a student."""

from typing import Protocol

from grpo.data.examples import DataError
from models.config import GemmaConfig
from models.tokenizer import Tokenizer


class Reads(Protocol):
    """A model, or where it comes from."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def config(self) -> GemmaConfig: ...


def require_same_tokens(stage: str, student: Reads, teacher: Reads) -> None:
    """Refuses a teacher to whom the same ids are other texts."""
    ours, theirs = student.tokenizer, teacher.tokenizer
    if ours.proto != theirs.proto and (different := ours.differs_from(theirs)):
        raise DataError(
            f"stages.{stage}.teacher: its tokenizer is another one ({different}): a teacher of the "
            "same family is needed, whose ids are the student's"
        )
    if teacher.config.vocab_size < student.config.vocab_size:
        raise DataError(
            f"stages.{stage}.teacher: knows {teacher.config.vocab_size} tokens, the student "
            f"{student.config.vocab_size}"
        )
