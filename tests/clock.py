"""Tests by the clock, on machines that may be too busy to wake a sleeper in time."""

import functools
import threading
import time

STEP = 0.02  # seconds that a sleeper sleeps
LATE = 0.01  # seconds that it may be late on a machine whose clock tells something
TRIES = 10


class Sleeper(threading.Thread):
    """Sleeps and wakes, and remembers how late it ever was."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late, self._is_over = 0.0, threading.Event()

    def run(self):
        """Until it is over."""
        while not self._is_over.is_set():
            start = time.monotonic()
            self._is_over.wait(STEP)
            self.late = max(self.late, time.monotonic() - start - STEP)

    def end(self):
        """How late it was at worst."""
        self._is_over.set()
        self.join()
        return self.late


def by_the_clock(test):
    """A test of a `server`, made again where it fails while a mere sleeper was late as well."""

    @functools.wraps(test)
    def made(server, **given):
        for left in reversed(range(TRIES)):
            server.forget()
            sleeper = Sleeper()
            sleeper.start()
            try:
                return test(server, **given)
            except AssertionError:
                if sleeper.end() < LATE or not left:
                    raise
            finally:
                sleeper.end()

    return made
