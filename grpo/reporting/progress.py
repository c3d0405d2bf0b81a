"""What a run shows while it goes: a line of progress, texts above it, tables.

    in a terminal   one line with a bar, rewritten in place and never as wide as the terminal: the
                    last facts are left out first, then the bar
    in a log        lines without a bar and without control characters, at most one in `every_s`
                    seconds, and always the first and the last of a stage

The pace is that since the end of the first iteration seen here: it knows nothing of compiling, nor
of what was done before a resume. Texts may come from outside (completions, names); none of them
can move the cursor. A stream that fails is not shown to, and training goes on.
"""

import contextlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from grpo.reporting.text import cut, duration, number, pace, printable, width

CLEAR = "\x1b[K"  # from the cursor to the end of the line
BARS = ("━╾─", "#--")  # done, half done, not done
CELLS = 20


def bar(done: int, total: int, glyphs: str) -> str:
    """How much is done, in half cells."""
    halves = min(2 * CELLS * done // max(total, 1), 2 * CELLS)
    return (glyphs[0] * (halves // 2) + glyphs[1] * (halves % 2)).ljust(CELLS, glyphs[2])


def fit(head: list[str], facts: list[str], tail: list[str], room: int) -> str:
    """A line of `room` cells at most: what does not fit is left out, facts before the bar."""
    tries = [[*head, *facts[:n], *tail] for n in range(len(facts), -1, -1)]
    tries.append([*head[:-1], *tail])
    lines = ["  ".join(parts) for parts in tries]
    return next((line for line in lines if width(line) <= room), cut(lines[-1], room))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others to the right; Markdown reads it too."""
    # Backslashes before a pipe are doubled: one of them would undo its escape.
    cells = [[re.sub(r"(\\*)\|", r"\1\1\\|", printable(t)) for t in row] for row in (header, *rows)]
    widths = [max(3, *map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        gaps = [" " * (most - width(t)) for most, t in zip(widths, row, strict=True)]
        right = [gap + t for gap, t in zip(gaps[1:], row[1:], strict=True)]
        lines.append(f"| {' | '.join([row[0] + gaps[0], *right])} |")
    rules = [":" + "-" * (widths[0] + 1), *("-" * (most + 1) + ":" for most in widths[1:])]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


class Pace:
    """Seconds per iteration since the first one seen to end."""

    def __init__(self, done: int):
        self.last, self._since = done, (0, math.nan)

    def seconds(self, done: int, now: float) -> float:
        """What an iteration takes; NaN before a second one has ended."""
        since, start = self._since
        if math.isnan(start) and done > self.last:
            self._since = since, start = done, now
        self.last = done
        return (now - start) / (done - since) if done > since else math.nan


class Progress:
    """The line of progress on a stream; stages may take turns."""

    def __init__(
        self, stream: TextIO, *, every_s: float, clock: Callable[[], float] = time.monotonic
    ):
        self._stream, self._every_s, self._clock = stream, every_s, clock
        self._is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._encoding = stream.encoding or "utf-8"
        self._glyphs = BARS[self._clean(BARS[0]) != BARS[0]]
        self._paces: dict[str, Pace] = {}
        self._line = ""  # in a terminal what stands in the last line, in a log what was held back
        self._shown_at = -math.inf

    def update(
        self, stage: str, done: int, total: int, facts: Mapping[str, float | int | str]
    ) -> None:
        """Shows that `done` of `total` iterations of a stage are done, and some facts of it."""
        now = self._clock()
        is_first = stage not in self._paces or done < self._paces[stage].last
        if is_first:
            self._paces[stage] = Pace(done)
        seconds = self._paces[stage].seconds(done, now)
        tail = [] if math.isnan(seconds) else [pace(seconds)]
        if tail and done < total:
            tail.append(f"{duration(seconds * (total - done))} left")
        head = [self._clean(stage), f"{done:{len(str(total))}}/{total}"]
        shown = [
            self._clean(f"{name} {value if isinstance(value, str) else number(value)}")
            for name, value in facts.items()
        ]
        if self._is_terminal:
            head.append(bar(done, total, self._glyphs))
            # One cell less than there are: what stands in the last one may wrap, or be cleared.
            self._line = fit(head, shown, tail, shutil.get_terminal_size().columns - 1)
            self._write(f"\r{self._line}{CLEAR}")
            if done >= total:
                self.close()
            return
        self._line = "  ".join([*head, *shown, *tail])
        if is_first or done >= total or now - self._shown_at >= self._every_s:
            self._shown_at = now
            self.close()

    def say(self, text: str) -> None:
        """Prints a text of one or more lines above the line of progress."""
        text = "\n".join(self._clean(line) for line in text.split("\n"))
        self._write(f"\r{CLEAR}{text}\n{self._line}" if self._is_terminal else f"{text}\n")

    def close(self) -> None:
        """Ends the line that stands there; in a log, writes the one that was held back."""
        if self._line:
            self._write("\n" if self._is_terminal else f"{self._line}\n")
        self._line = ""

    def _clean(self, text: str) -> str:
        """A text that the stream can show."""
        return printable(text).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _write(self, text: str) -> None:
        """Writes at once; a full disk, a terminal that is gone and a closed file are no reason."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
