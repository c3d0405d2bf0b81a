"""What a checkpoint knows of the journals beside it: how many rows there were, and which.

A checkpoint vouches for its journals in a file of its own, journals.json: {name: {rows, sha256,
lost}}. `lost` are the rows that could not be written, or were gone when a run went on. The journals
are brought to the disk before the checkpoint that vouches for them.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from grpo.storage.journal import Journal

FILE = "journals.json"


class Mark(NamedTuple):
    """A journal as it stood: its rows, their sha256, and how many should stand there besides."""

    rows: int
    sha256: str
    lost: int


class Witness:
    """Marks a journal as it grows; what it has seen is not read again."""

    def __init__(self, journal: Journal):
        self.journal = journal
        self._forget()

    def mark(self) -> Mark:
        """The journal as it stands, which is on the disk by then."""
        path = self.journal.path
        if path.exists():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                if file.seek(0, os.SEEK_END) < self._end:
                    self._forget()
                file.seek(self._end)
                for line in whole_lines(file):
                    self._digest.update(line)
                    self._rows += 1
                    self._end += len(line)
        return Mark(self._rows, self._digest.hexdigest(), self.journal.lost)

    def _forget(self) -> None:
        """Begins with the first row again."""
        self._digest, self._rows, self._end = hashlib.sha256(), 0, 0


def whole_lines(file: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a journal that count."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def read_marks(checkpoint: pathlib.Path) -> dict[str, Mark]:
    """The journals that a checkpoint vouches for; an older one vouches for none."""
    try:
        found = json.loads((checkpoint / FILE).read_text("utf-8"))
        return {name: Mark(**mark) for name, mark in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def marks_as_json(marks: Mapping[str, Mark]) -> dict[str, dict]:
    """What journals.json holds."""
    return {name: mark._asdict() for name, mark in marks.items()}


def rows_missing(path: pathlib.Path, mark: Mark) -> int:
    """How many rows of a journal are gone that a checkpoint vouches for."""
    return max(0, mark.rows - found_in(path, mark)[0])


def journal_fault(path: pathlib.Path, mark: Mark) -> str:
    """What is wrong with the rows that a checkpoint vouches for; "" if nothing is."""
    rows, sha256 = found_in(path, mark)
    if rows < mark.rows:
        return f"{path.name}: has {rows} of the {mark.rows} rows that the checkpoint vouches for"
    if sha256 != mark.sha256:
        return f"{path.name}: its first {mark.rows} rows are not those the checkpoint vouches for"
    return ""


def found_in(path: pathlib.Path, mark: Mark) -> tuple[int, str]:
    """How many of so many rows a journal has, and their sha256."""
    digest, rows = hashlib.sha256(), 0
    if path.exists():
        with open(path, "rb") as file:
            for line in whole_lines(file):
                if rows == mark.rows:
                    break
                digest.update(line)
                rows += 1
    return rows, digest.hexdigest()
