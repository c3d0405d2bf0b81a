"""Replies that are kept in a file: asked once, and the same whenever they are asked for again.

    recorded(ask, path)   the reply in the file, or else one that is asked for and appended
    replayed(path)        the reply in the file, or else a failure

A reply is a row of a journal (grpo/storage/journal.py):

    {"key": "<sha256>", "text": "...", "attempts": 1}      or "score", or both, or "reason"

With a replay a run goes bit by bit as it went, without the model. So what failed is kept, and fails
again: the run went on without it. `again` drops failures when a file is opened, for what is to be
asked once more; a replay of the file is then one of the runs since.

A row is in the file as soon as the batch that it belongs to is answered, in the order of the
questions: equal runs have equal files, and a run that is killed loses one batch at most. The first
row of a key counts. A torn last row is asked again, a damaged one is an error that names it. One
process at a time may record into a file.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from grpo.judges.asking import Ask, Question, Reply
from grpo.storage.journal import Journal, JournalError, Row, lines_of

FIELDS = {"key": str, "text": str, "score": int | float, "reason": str, "attempts": int}
UNKNOWN = (
    "unknown: the recording has no reply to this question: record one, or look for what has "
    "changed since: the prompt, the model, its settings"
)


def recorded(ask: Ask, path: str | pathlib.Path, *, again: bool) -> Ask:
    """Asks what is not in the file, each question once, and keeps what it is told there."""
    journal = Journal(path)
    if again:
        journal.keep(lambda row: "reason" not in row)
    known = replies_in(journal.path) if journal.path.exists() else {}

    def answer(questions: Sequence[Question]) -> list[Reply]:
        new = {question.key: question for question in questions if question.key not in known}
        fresh = dict(zip(new, ask([*new.values()]) if new else [], strict=True))
        for key, reply in fresh.items():
            journal.write(row_of(key, reply))
            known[key] = dataclasses.replace(reply, is_cached=True)
        return [fresh.pop(question.key, None) or known[question.key] for question in questions]

    return answer


def replayed(path: str | pathlib.Path) -> Ask:
    """Answers out of the file only."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise JournalError(f"{path}: no such file: a replay needs a recording of an earlier run")
    known = replies_in(path)
    unknown = Reply(reason=UNKNOWN, attempts=0)
    return lambda questions: [known.get(question.key, unknown) for question in questions]


def replies_in(path: pathlib.Path) -> dict[str, Reply]:
    """The replies of a recording by their keys."""
    known: dict[str, Reply] = {}
    for number, (_, row) in enumerate(lines_of(path), start=1):
        if row is not None:
            try:
                key, reply = reply_of(row)
            except (ValueError, OverflowError) as error:
                raise JournalError(f"{path}:line {number}: no reply: {error}") from None
            known.setdefault(key, reply)
    return known


def row_of(key: str, reply: Reply) -> Row:
    """A reply as it is kept."""
    told = {field: getattr(reply, field) for field in ("text", "score", "reason")}
    given = {field: value for field, value in told.items() if value is not None}
    return {"key": key, **given, "attempts": reply.attempts}


def reply_of(row: Row) -> tuple[str, Reply]:
    """The key and the reply of a row."""
    fields: dict[str, Any] = dict(row)
    for field, value in fields.items():
        if field not in FIELDS:
            raise ValueError(f"field {field!r:.40} is none of {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[field]) or isinstance(value, bool):
            raise ValueError(f"field {field!r} is of type {type(value).__name__}")
    for field in ("key", "attempts"):
        if field not in fields:
            raise ValueError(f"no field {field!r}")
    return fields.pop("key"), Reply(**fields, is_cached=True)
