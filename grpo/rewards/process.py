"""A reward process, seen by the run: how it is started, what it has in hand, how it is ended.

It is another Python (never a fork: the run has JAX's threads), in a session, process group and
scratch directory of its own, with few variables of the environment, none of them a secret, and no
accelerator. The two talk over a pair of sockets; nothing that the process prints is read.
worker.py is the other side.
"""

import collections
import contextlib
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from grpo.rewards.batch import short
from grpo.rewards.messages import LARGEST, packed, unpacked

KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ")  # of the environment
POLITE = 0.3  # seconds from SIGTERM to SIGKILL
PIECE, PIECES = 2**18, 64  # bytes that are sent or received at once, and how often at most
LOG = "start.log"  # what Python says before a process can


class Unit(NamedTuple):
    """Rows of a call that are called at once, and the seconds after which the process is ended."""

    name: str
    rows: tuple[int, ...]
    limit: float


def environment(scratch: str) -> dict[str, str]:
    """The variables of a reward process."""
    here = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = {
        "HOME": scratch,
        "TMPDIR": scratch,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONHASHSEED": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",  # which a function may import; this project's own do not
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # each thread takes address space
    }
    return here | own


class Process:
    """A reward process; to be ended by `end`, whatever happened."""

    def __init__(self, hello: Mapping[str, Any], seconds_to_start: float):
        self.is_ready = False
        self.units: collections.deque[Unit] = collections.deque()  # in hand, the first one first
        self.until = time.monotonic() + seconds_to_start  # when it is to be ended
        self._unsent, self._received, self._is_closed = bytearray(), bytearray(), False
        self._scratch = tempfile.mkdtemp(prefix="reward-")
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        try:
            with theirs, open(self._log, "wb") as log:
                self._child = subprocess.Popen(
                    # -P: nothing is imported from the directory that functions write in.
                    [sys.executable, "-P", "-m", "grpo.rewards.worker"],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=log, cwd=self._scratch,
                    env=environment(self._scratch), start_new_session=True,
                )  # fmt: skip
        except OSError:
            self._clean()
            raise
        self.send(hello)

    @property
    def _log(self) -> pathlib.Path:
        return pathlib.Path(self._scratch, LOG)

    def fileno(self) -> int:
        """Of the line, for a selector."""
        return self._line.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether a message is not yet sent as a whole."""
        return bool(self._unsent)

    def give(self, units: Iterable[Unit], message: Any) -> None:
        """Gives it units, which the message asks about."""
        self.units.extend(units)
        self.send(message)
        self.start_clock()

    def start_clock(self) -> None:
        """The first unit's time begins."""
        self.until = time.monotonic() + self.units[0].limit if self.units else math.inf

    def send(self, message: Any) -> None:
        """Sends a message as far as it goes now."""
        self._unsent += packed(message)
        self.send_more()

    def send_more(self) -> None:
        """Sends what is left of a message as far as it goes now."""
        try:
            while self._unsent:
                del self._unsent[: self._line.send(self._unsent[:PIECE])]
        except BlockingIOError:
            return
        except OSError:  # the other end is closed; `lost` knows why
            self._unsent.clear()

    def receive(self) -> Iterable[Any]:
        """The messages that have come."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(PIECES):
                data = self._line.recv(PIECE)
                self._received += data
                if not data:
                    self._is_closed = True
                    break
        return unpacked(self._received, largest=LARGEST)

    def lost(self) -> str | None:
        """What became of the process, if it is there no more."""
        if self._is_closed:
            self._wait(POLITE)
        code = self._child.poll()
        if code is None:
            return "closed its line" if self._is_closed else None
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        said = short(self._log.read_text("utf-8", "replace"))[-100:] if not self.is_ready else ""
        return f"ended with exit code {code}{said and ': '}{said}"

    def end(self) -> None:
        """Ends the process and its group, politely first, and cleans up."""
        self._signal(signal.SIGTERM)
        self._wait(POLITE)
        self._signal(signal.SIGKILL)
        self._child.wait()
        self._clean()

    def _signal(self, number: int) -> None:
        # The group outlives the process that it is named after, where that left children.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)

    def _clean(self) -> None:
        self._line.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
