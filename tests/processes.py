"""Which processes there are, read from /proc."""

import os
import pathlib
import time
from collections.abc import Collection
from typing import NamedTuple

PROC = pathlib.Path("/proc")


class Seen(NamedTuple):
    """A process that is no zombie."""

    parent: int
    session: int


def processes() -> dict[int, Seen]:
    """By number."""
    found = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended meanwhile
            continue
        if state not in "ZX":
            found[int(path.parent.name)] = Seen(int(parent), int(session))
    return found


def reward_processes(parent: int | None = None) -> set[int]:
    """The sessions that a process leads reward processes in; without a number, this one."""
    parent = parent or os.getpid()
    return {n for n, seen in processes().items() if seen == Seen(parent, n)}


def left_of(sessions: Collection[int], seconds: float = 0.0) -> set[int]:
    """The processes of these sessions, which have so many seconds to end."""
    end = time.monotonic() + seconds
    while True:
        left = {n for n, seen in processes().items() if seen.session in sessions}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)
