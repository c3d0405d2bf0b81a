"""Reward functions that do what none should, where the completion is "bad"; else its length.

They are called in processes of their own alone: most would end the tests.
"""

import contextlib
import ctypes
import functools
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from grpo.rewards.batch import Reward, each
from grpo.rewards.messages import packed
from grpo.rewards.table import Entry

FAULTS: dict[str, Callable[[dict], object]] = {}


def fault(function):
    """Adds a function of the example to FAULTS."""
    FAULTS[function.__name__] = function
    return function


@fault
def raises(example):
    raise KeyError("gone")


@fault
def exits(example):
    sys.exit(3)


@fault
def exits_at_once(example):
    os._exit(7)


@fault
def aborts(example):
    os.abort()


@fault
def breaks_memory(example):
    ctypes.string_at(0)


@fault
def sleeps(example):
    time.sleep(1000)


@fault
def swallows(example):
    while True:
        with contextlib.suppress(Exception):  # as careless code does
            time.sleep(1000)


@fault
def ignores_everything(example):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


@fault
def holds_the_lock(example):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    re.search("(a+)+$", "a" * 60 + "b")


@fault
def allocates(example):
    return len(bytearray(10 * 2**30))


@fault
def prints(example):
    for _ in range(100):
        os.write(1, b"x" * 2**19)
        sys.stderr.write("y" * 2**19)
    return 8.0


@fault
def reads(example):
    return float(len(sys.stdin.read()))


def forks(work):
    child = os.fork()
    if child == 0:
        work()
    return 8.0


@fault
def leaves_a_child(example):
    return forks(lambda: time.sleep(1000))


@fault
def leaves_a_stubborn_child(example):
    return forks(lambda: ignores_everything(example))


@fault
def leaves_a_program(example):
    with open("log", "w") as log:
        subprocess.Popen(["/bin/sleep", "1000"], stdout=log)
    return 8.0


@fault
def comes_back_twice(example):
    return forks(lambda: time.sleep(0.2))


@fault
def leaves_a_thread(example):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return 8.0


@fault
def closes_all(example):
    os.closerange(3, 1000)


@fault
def removes_its_directory(example):
    shutil.rmtree(os.getcwd())


@fault
def connects(example):
    socket.create_connection(("127.0.0.1", 9), timeout=1)


@fault
def asks_for_a_name(example):
    socket.getaddrinfo("localhost", 80)


@fault
def makes_a_pair(example):
    socket.socketpair()


def line_of(example):
    return next(fd for fd in range(3, 100) if stat.S_ISSOCK(os.fstat(fd).st_mode))


@fault
def babbles(example):
    os.write(line_of(example), b"\xff" * 100)


@fault
def sends_no_json(example):
    os.write(line_of(example), b"\0\0\0\4spam")


@fault
def sends_nests(example):
    os.write(line_of(example), b"\0\3\0\0" + b"[" * 3 * 2**16)


def forges(answer):
    def forge(example):
        os.write(line_of(example), packed(answer))
        time.sleep(1000)

    return forge


FORGED = {
    "forges_infinity": [[float("inf")], None],
    "forges_more": [[9.5], None],
    "forges_a_text": [["8"], None],
    "forges_two": [[1.0, 1.0], None],
    "forges_none": [[], None],
    "forges_no_reason": [[None], None],
    "forges_a_number": [[None], 3],
    "forges_null": None,
    "forges_an_object": {"a": 1, "b": 2},
    "forges_true": [[True], None],
}
FAULTS |= {name: forges(answer) for name, answer in FORGED.items()}

RETURNED = {
    "returns_none": None,
    "returns_nan": float("nan"),
    "returns_inf": float("inf"),
    "returns_text": "8",
    "returns_true": True,
    "returns_several": [1.0, 2.0],
}
FAULTS |= {name: lambda example, value=value: value for name, value in RETURNED.items()}


def spoilt(fault, example, completion):
    """The length of a completion, or what is wrong."""
    return fault(example) if completion == "bad" else float(len(completion))


def changes_example(example, completion):
    """As many as the example has been asked for; it is the same for several completions."""
    example["asked"] = example.get("asked", 0) + 1
    return float(example["asked"])


def goes_away(example, completion):
    """The entries of the directory; then it goes elsewhere."""
    found = len(os.listdir())
    os.chdir("/")
    return float(found)


def environment(example, completion):
    """Whether a variable of the environment is there."""
    return float(completion in os.environ)


def imported(example, completion):
    """Whether a module is imported."""
    return float(completion in sys.modules)


def searched(example, completion):
    """Whether Python looks for modules where functions write."""
    return float(bool({"", os.getcwd()} & {*sys.path}))


def complains(example, completion):
    """Fails, by what it is given; slowly where that says so."""
    if completion == "slow":
        time.sleep(0.3)
    raise KeyError(completion)


def option(example, completion, *, value):
    """2 for a tuple."""
    return 1.0 + isinstance(value, tuple)


def points(example, completion):
    """The sum of the code points, modulo a prime."""
    return float(sum(ord(char) * (n + 1) for n, char in enumerate(completion)) % 8191)


def number(example, completion):
    """The number that the example has, to the last bit."""
    return example["x"]


def process(example, completion):
    """The process, slowly, so that every one has some."""
    time.sleep(0.02)
    return float(os.getpid())


def rank(examples, completions, *, factor: float = 1.0):
    """Of how many completions of the batch this one is as long or longer."""
    sizes = np.array([len(text) for text in completions])
    return (sizes[None, :] <= sizes[:, None]).sum(axis=1) * factor


def breaks_as_a_whole(examples, completions):
    """One bad completion costs the batch."""
    if "bad" in completions:
        os.abort()
    return [float(len(text)) for text in completions]


def wrong_number(examples, completions):
    return [1.0] * (len(completions) + 1)


def late(examples, completions):
    """Half of the time of the batch, and then values that take half of it again."""
    time.sleep(0.5)
    return [functools.partial(slow, text) for text in completions]


def slow(text):
    time.sleep(0.15)
    return float(len(text))


def entry(name: str, *, high: float = 9.0, **options) -> Entry:
    """An entry of a table for a function of this file."""
    return Entry(functools.partial(REWARDS[name], **options), 1.0, None, -high, high, (), options)


HERE = f"{__name__}:REWARDS"
REWARDS: dict[str, Reward] = {
    **{name: each(functools.partial(spoilt, function)) for name, function in FAULTS.items()},
    **{
        function.__name__: each(function)
        for function in (
            changes_example, goes_away, environment, imported, searched, complains, option, points,
            number, process,
        )
    },
    "rank": rank,
    "breaks_as_a_whole": breaks_as_a_whole,
    "wrong_number": wrong_number,
    "late": late,
}  # fmt: skip
