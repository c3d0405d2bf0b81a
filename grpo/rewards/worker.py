"""A reward process, seen from within: it is started by process.py, and reads and answers there.

    1. {"rewards", "table", "train", "memory"}      answer: "ready", or a reason why not
    2. {"name", "seconds", "limit", "units": [[[example, completion], ...], ...]}, again and again
       answer, one per unit: [values, reason], with null for a value that there is not

A unit is what `values` of batch.py is given at once, as it would be in the run's own process: one
completion, or the whole batch of a function that compares them. The directory is put back after
each; what else a function leaves behind (modules, random states, the environment) stays for the
next one, as it does in the run's own process.

Sockets are refused by an audit hook, which cannot be taken off: Python code, that of packages too,
reaches no network and no local server. Programs that a function starts, and C code that does not
go through Python's socket module, are not stopped. The limit of memory is that of the address space
(RLIMIT_AS: Linux), of each process by itself.

The process ends, with all of its group, when the run's end of the line is closed, however the run
ended. Where a call keeps Python's lock, so that the thread that waits for this cannot run, the
process ends by itself after `limit` seconds. A child that has left the group is not found.
"""

import faulthandler
import functools
import importlib
import math
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.rewards.batch import Reward, reason, values
from grpo.rewards.messages import packed, unpacked
from grpo.rewards.table import FITS, PACKAGES


class Function(NamedTuple):
    """A reward function with its options and what it has learnt, and its range."""

    reward: Reward
    low: float
    high: float


def frozen(option: Any) -> Any:
    """An option as configs have it: JSON makes a list of a tuple."""
    return tuple(map(frozen, option)) if isinstance(option, list) else option


def functions_of(hello: Mapping[str, Any]) -> dict[str, Function]:
    """The functions of the table, by name, ready to be called."""
    module, _, name = hello["rewards"].partition(":")
    rewards, ready = getattr(importlib.import_module(module), name), {}
    for name, entry in hello["table"].items():
        options = {option: frozen(value) for option, value in entry["options"].items()}
        function = functools.partial(rewards[name], **options)
        if name in FITS:
            function = functools.partial(function, fitted=FITS[name](hello["train"], options))
        if name in PACKAGES:  # which takes seconds, that are not the first completion's
            importlib.import_module(PACKAGES[name][0])
        ready[name] = Function(function, entry["low"], entry["high"])
    return ready


def answer(function: Function, unit: Sequence[Sequence[Any]], seconds: float) -> list[Any]:
    """The values of a unit, None where there is none, and the first reason why."""
    examples, completions = zip(*unit, strict=True)
    low, high = function.low, function.high
    try:
        value_B, why = values(
            function.reward, examples, completions, low=low, high=high, seconds=seconds
        )
    except BaseException as error:  # sys.exit() is none of Exception
        value_B, why = np.full(len(unit), np.nan), reason(error)
    return [[None if value != value else value for value in value_B.tolist()], why]


def refuse_sockets(event: str, arguments: Any) -> None:
    """An audit hook without network."""
    if event.startswith("socket."):
        raise PermissionError("a reward process has no network")


def end_with(line: int) -> None:
    """Ends the group when the other end of the line is closed."""
    poll = select.poll()
    poll.register(line, 0)  # of which a hang-up is told nevertheless
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def next_message(line: int, received: bytearray) -> Any:
    """The next message; where there will be none, the end."""
    while (message := next(unpacked(received, largest=math.inf), None)) is None:
        data = os.read(line, 2**20)
        if not data:
            os.killpg(0, signal.SIGKILL)
        received += data
    return message


def send(line: int, message: Any) -> None:
    """Sends all of a message."""
    data = packed(message)
    while data:
        data = data[os.write(line, data) :]


def limit(memory: int) -> None:
    """No more memory than so many bytes, no file of a crash, no network."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(refuse_sockets)


def main() -> None:
    """Answers until it is ended."""
    line, nowhere = os.dup(0), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # whatever is read or printed has nothing to do with the line
        os.dup2(nowhere, stream)
    threading.Thread(target=end_with, args=(line,), daemon=True).start()
    hello = next_message(line, received := bytearray())
    limit(hello["memory"])
    try:
        functions = functions_of(hello)
    except BaseException as error:  # of any package
        send(line, reason(error))
        return
    os.dup2(nowhere, 2)
    send(line, "ready")
    serve(functions, functools.partial(next_message, line, received), line)


def serve(functions: Mapping[str, Function], ask: Callable[[], Any], line: int) -> None:
    """Answers what is asked, unit by unit."""
    here, own = os.getcwd(), os.getpid()
    with open(os.devnull, "w") as nowhere:
        while True:
            asked = ask()
            # A thread of C code, for which no lock is in the way.
            faulthandler.dump_traceback_later(asked["limit"], exit=True, file=nowhere)
            for unit in asked["units"]:
                said = answer(functions[asked["name"]], unit, asked["seconds"])
                if os.getpid() != own:  # a child that came back from the function
                    os._exit(0)
                os.chdir(here)
                send(line, said)
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
