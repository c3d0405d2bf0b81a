"""The time limit of reward functions, on functions that do not end."""

import contextlib
import re
import signal
import threading
import time

import pytest

from grpo.rewards.deadline import DeadlineError, deadline


def spin():
    while True:
        pass


def swallow():
    while True:
        try:
            time.sleep(10)
        except Exception:  # as careless code does
            if time.monotonic() > swallow.until:
                raise
            continue


@pytest.mark.parametrize(
    "hang",
    [spin, lambda: time.sleep(60), lambda: re.search("(a+)+$", "a" * 60 + "b")],
    ids=["loop", "sleep", "regex"],
)
def test_a_call_that_hangs_is_ended(hang):
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    with pytest.raises(DeadlineError, match=r"more than 0\.2 seconds"), deadline(0.2):
        hang()
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_exception_that_is_swallowed_comes_again():
    swallow.until = time.monotonic() + 0.5
    with pytest.raises(DeadlineError), deadline(0.1):
        swallow()


def test_quick_calls_are_left_alone():
    with deadline(0.2):
        got = 3
    time.sleep(0.3)  # no timer is left behind
    assert got == 3


def test_a_deadline_that_is_up_at_once_leaves_nothing_behind():
    before = signal.getsignal(signal.SIGALRM)
    for _ in range(2000):
        with contextlib.suppress(DeadlineError), deadline(1e-6):
            pass
        assert signal.getsignal(signal.SIGALRM) is before
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_other_threads_have_no_limit():
    got = []

    def work():
        with deadline(0.01):
            time.sleep(0.1)
            got.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert got == [1]
