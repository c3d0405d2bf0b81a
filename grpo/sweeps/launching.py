"""The process of a job: how it is started and looked at, and why it ended.

It gets a pipe as its input, which closes when its driver is gone, however that ended (worker.py);
what it says goes into jobs/<name>/log.txt. A hanging one is killed with all processes of its own.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

from grpo.reporting.text import cut, printable
from grpo.storage.journal import Journal
from grpo.sweeps.claims import Claim, this_process
from grpo.sweeps.jobs import COMPLETE, FAILED, STOPPED, Job, folder_of, news_of, run_of

WRONG, SAVED = 2, 75  # exit codes of a run: of a wrong config, of one that goes on; pipeline.py
LONGEST = 300  # characters of a reason


@dataclasses.dataclass
class Launch:
    """A job at work."""

    job: Job
    claim: Claim
    process: subprocess.Popen
    began: float
    news: int  # bytes in its journals when they last grew
    since: float  # when that was
    is_asked: bool = False  # to stop
    killed: str | None = None  # why the driver killed it


def launch(workdir: pathlib.Path, job: Job, claim: Claim, command: Sequence[str]) -> Launch:
    """Starts a job."""
    with open(folder_of(workdir, job) / "log.txt", "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    now = time.time()
    return Launch(job, claim, process, now, news_of(workdir, job), now)


def is_hanging(workdir: pathlib.Path, launched: Launch, seconds: float) -> bool:
    """Whether its journals have not grown for so long."""
    news, now = news_of(workdir, launched.job), time.time()
    if news != launched.news:
        launched.news, launched.since = news, now
    return now - launched.since > seconds


def kill(launched: Launch, why: str) -> None:
    """Ends a job and its own processes at once."""
    launched.killed = why
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(launched.process.pid, signal.SIGKILL)


def ask_to_stop(launched: Launch) -> None:
    """Has a run finish its update, save and end; a second signal would end it at once."""
    if not launched.is_asked:
        launched.is_asked = True
        launched.process.send_signal(signal.SIGTERM)  # to no other: it is not yet waited for


def write_end(workdir: pathlib.Path, launched: Launch) -> tuple[str, str | None]:
    """Writes down how a process that has ended did so: state and reason."""
    code, now = launched.process.returncode, time.time()
    if launched.process.stdin:
        launched.process.stdin.close()
    if code == 0 and not launched.killed:
        state, reason = COMPLETE, None
    elif launched.is_asked or (code == SAVED and not launched.killed):
        # Asked while it was still starting, or killed then, it goes on from its last checkpoint.
        state, reason = STOPPED, None
    else:
        state, reason = FAILED, launched.killed or reason_of(workdir, launched.job, code)
    where = this_process()
    Journal(folder_of(workdir, launched.job) / "launches.jsonl").write({
        "state": state, "reason": reason, "code": code, "host": where["host"], "pid": where["pid"],
        "began": round(launched.began, 3), "ended": round(now, 3),
        "seconds": round(now - launched.began, 3),
    })  # fmt: skip
    return state, reason


def reason_of(workdir: pathlib.Path, job: Job, code: int) -> str:
    """Why a run failed: the signal, what its FAILED says, or the last it said."""
    if code < 0:
        often = ", as it is by a system out of memory" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{often}"
    lines = []
    failed = [run_of(workdir, job) / "FAILED"] if code != WRONG else []  # it would be an old one
    for file in (*failed, folder_of(workdir, job) / "log.txt"):
        with contextlib.suppress(OSError):
            text = file.read_bytes()[-100_000:].decode("utf-8", "replace")
            said = [line for line in text.splitlines() if line.strip()]
            lines += said[:1] if file.name == "FAILED" else said[-1:]
    said = printable(lines[0]).removeprefix("error: ") if lines else f"exit code {code}"
    return cut(said, LONGEST)
