"""A limit on the time that one call of a reward function may take.

The system's timer interrupts Python code, and regular expressions, wherever they are. It cannot
interrupt other C code, nor survive a crash in it; that takes a process of its own. Timers belong to
the main thread: elsewhere there is no limit.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = 0.1  # seconds at least from one interruption to the next


class DeadlineError(Exception):
    """A call took too long."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises DeadlineError inside of the block when its time is up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise DeadlineError(f"took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    try:  # twice: time may be up while the inner block is left
        try:
            # Again and again: code that swallows the first exception is asked once more.
            signal.setitimer(signal.ITIMER_REAL, seconds, max(seconds, AGAIN))
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
