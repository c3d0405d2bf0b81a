"""Work that waits for others, in a thread beside the one that computes.

A process that ends does not wait for such a thread; work that nobody waits for any more goes on
until then. Programs of the policy's devices have no place in it: two threads would hand them to the
devices in an order of their own.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

Value = TypeVar("Value")
BLINK = 0.1  # seconds at most from one look around to the next


def begin(work: Callable[[], Value]) -> Future[Value]:
    """Begins some work."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # which is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def result_of(future: Future[Value], check: Callable[[], None]) -> Value:
    """What the work has come to; `check` is called all the while, and may raise."""
    while not wait([future], BLINK).done:
        check()
    return future.result()
