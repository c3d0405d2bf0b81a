"""What a driver shows: a line for each job that has ended, and below them those that run.

In a terminal the lower part is rewritten in place; in a log there are the lines alone, and a count
at most every so many seconds.

    time left = cells still to be done · time since the first look / cells done since then

where a running cell counts by the share of its iterations that is done.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from grpo.reporting.text import cut, duration, printable

UP, CLEAR = "\x1b[{}A", "\x1b[J"  # so many lines up; from the cursor to the end of the screen
OPEN = ("running", "waiting", "stopped", "elsewhere")


class Display:
    """Lines on a stream."""

    def __init__(self, stream: TextIO, *, every_s: float):
        self._stream, self._every_s = stream, every_s
        self._is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._block: list[str] = []  # what stands below in a terminal
        self._shown_at = -math.inf
        self._since: tuple[float, float] | None = None  # when, and what was done then

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write([printable(text)], self._block)

    def show(
        self, rows: Sequence[tuple[str, str]], counts: Mapping[str, int], shares: float
    ) -> None:
        """The running jobs, and how many are in which state."""
        summary = [f"{count} {state}" for state, count in counts.items() if count]
        if left := self._left(counts, shares):
            summary.append(f"{left} left")
        line = ", ".join(summary)
        if self._is_terminal:
            width = max((len(name) for name, _ in rows), default=0)
            self._write([], [*(f"  {name:{width}}  {words}" for name, words in rows), line])
        elif time.monotonic() - self._shown_at >= self._every_s:
            self._shown_at = time.monotonic()
            running = "; ".join(f"{name} {words}" for name, words in rows)
            self._write([f"{line}{': ' if running else ''}{running}"], [])

    def close(self) -> None:
        """Leaves what stands there."""
        self._block = []

    def _left(self, counts: Mapping[str, int], shares: float) -> str | None:
        """How long it will take at the pace so far, in words."""
        now, open_cells = time.monotonic(), sum(counts.get(state, 0) for state in OPEN)
        done = shares + sum(n for state, n in counts.items() if state not in OPEN)
        if self._since is None:
            self._since = now, done
        seconds, gained = now - self._since[0], done - self._since[1]
        if gained <= 0 or not open_cells:
            return None
        return duration(seconds / gained * max(open_cells - shares, 0.0))

    def _write(self, lines: Sequence[str], block: Sequence[str]) -> None:
        """Lines above, and the block below anew; a stream that fails is not shown to."""
        columns = shutil.get_terminal_size().columns - 1
        up = UP.format(len(self._block)) + "\r" + CLEAR if self._block else ""
        self._block = [cut(printable(line), columns) for line in block]
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(up + "".join(f"{line}\n" for line in (*lines, *self._block)))
            self._stream.flush()
