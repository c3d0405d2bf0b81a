"""The journal of a run: a JSON object per line, appended as the run goes.

    a row counts       once its line break is in the file; what follows the last one is torn
    a torn line        is dropped by whoever reads or writes next; it can only be the last
    any other bad line is an error that names the file and the line
    numbers            as Python prints them, so equal runs have equal files; NaN and ±inf are null
    texts              in ASCII: lone surrogates and control characters are escaped, break no line

A row is with the operating system when `write` returns: killing the process loses none. A machine
that loses power may lose those since the last checkpoint (vouched.py). A row that cannot be written
is counted as lost. One process writes at a time.
"""

import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]


class JournalError(ValueError):
    """A journal that cannot be read; one line that names the file, the line and the reason."""


class Journal:
    """Rows appended to a file, whose folder is made if need be."""

    def __init__(self, path: str | pathlib.Path, *, hold: Callable[[], None] | None = None):
        self.path, self._hold = pathlib.Path(path), hold  # `hold` raises where it may not write
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lost = 0  # rows
        self._has_warned = False

    def write(self, row: Row) -> None:
        """Appends a row; a file that cannot be written costs its rows, a warning, not the run."""
        line = encode(row)
        if self._hold is not None:
            self._hold()
        try:
            with open(self.path, "a+b") as file:
                drop_torn_end(file)
                file.write(line)
        except OSError as error:
            self.lost += 1
            if not self._has_warned:
                self._has_warned = True
                warn(f"{self.path}: rows are lost, it cannot be written ({error.strerror})")

    def keep(self, is_kept: Callable[[Row], bool]) -> int:
        """Drops the other rows and a torn line, for resuming; returns how many went.

        The file is replaced as a whole, or left alone where all is kept; kept lines keep their
        bytes.
        """
        if not self.path.exists():
            return 0
        kept, dropped = [], 0
        for line, row in lines_of(self.path):
            if row is not None and is_kept(row):
                kept.append(line)
            else:
                dropped += 1
        if dropped:
            replace(self.path.resolve(), b"".join(kept))  # the file, not a link to it
        return dropped

    def require_whole(self) -> None:
        """Refuses to go on without a row: for what others learn from, or is measured once."""
        if self.lost:
            raise JournalError(f"{self.path}: {self.lost} rows could not be written; free the disk")

    def rows(self) -> list[Row]:
        """Every row; none of a file that is not there yet."""
        return read_journal(self.path) if self.path.exists() else []


def read_journal(path: str | pathlib.Path) -> list[Row]:
    """Every row of a journal."""
    return [row for _, row in lines_of(pathlib.Path(path)) if row is not None]


def lines_of(path: pathlib.Path) -> Iterator[tuple[bytes, Row | None]]:
    """Each line and its row; None is that of a torn line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                yield line, None
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = " ".join(str(error).split())[:80]
                raise JournalError(f"{path}:line {number}: not JSON ({reason})") from None
            if not isinstance(row, dict):
                raise JournalError(f"{path}:line {number}: a {type(row).__name__}, not an object")
            yield line, row


def encode(row: Row) -> bytes:
    """The line of a row."""
    text = json.dumps(plain(row), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays without axes are numbers, numbers that are none are null."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):  # json would write 1 and "1" as the same key
                raise TypeError(f"the key {key!r} is a {type(key).__name__}, not a str")
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if getattr(value, "shape", None) == ():  # of NumPy or JAX
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def drop_torn_end(file: Any) -> None:
    """Cuts off what a write that failed or was killed has left behind the last line break."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def replace(path: pathlib.Path, data: bytes) -> None:
    """Puts other bytes into a file: whenever this is killed, it has the old ones or the new."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def warn(text: str) -> None:
    """Says a line on stderr, if that can be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # it may be on the same full disk, or closed
        return
