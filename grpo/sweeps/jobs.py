"""A job: a run that a driver starts, of a cell or of stages that cells share; and what it left.

Its state is what the last row of jobs/<name>/launches.jsonl says; a run that has DONE is done,
whoever saw it end.
"""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.reporting.evaluations import last_policy
from grpo.storage.journal import JournalError, Row, read_journal

WAITING, RUNNING, STOPPED, COMPLETE, FAILED = "waiting", "running", "stopped", "done", "failed"
TAIL = 8192  # bytes of a journal in which its last row ends


class Job(NamedTuple):
    """What is to be run."""

    name: str
    directory: str  # of its run, below the sweep's: cells/<name> or shared/<name>
    config: Mapping[str, Any]  # as run_config takes it
    parent: str | None = None  # the name of the shared run that it begins from

    @property
    def lengths(self) -> dict[str, int]:
        """The iterations of each stage in order; 0 of those that count none."""
        stages = self.config["stages"]
        names = self.config["pipeline"]
        return {n: stages[n].get("iterations") or stages[n].get("steps") or 0 for n in names}


def folder_of(workdir: pathlib.Path, job: Job) -> pathlib.Path:
    """Where drivers write about a job."""
    return workdir / "jobs" / job.name


def run_of(workdir: pathlib.Path, job: Job) -> pathlib.Path:
    """The directory of its run."""
    return workdir / job.directory


def launches_of(workdir: pathlib.Path, job: Job) -> list[Row]:
    """What drivers wrote down of its launches; one that was killed with its driver has no row."""
    file = folder_of(workdir, job) / "launches.jsonl"
    try:
        return read_journal(file) if file.exists() else []
    except JournalError:
        return []


def state_of(workdir: pathlib.Path, job: Job) -> tuple[str, str | None, float]:
    """State, reason and the time of its end."""
    rows = launches_of(workdir, job)
    last = rows[-1] if rows else {"state": WAITING, "reason": None, "ended": 0.0}
    if (run_of(workdir, job) / "DONE").exists():
        return COMPLETE, None, last["ended"]
    return last["state"], last["reason"], last["ended"]


def standing(workdir: pathlib.Path, jobs: Mapping[str, Job], name: str) -> tuple[str, str | None]:
    """State and reason of a job, which fails with the shared run that it waits for."""
    job = jobs[name]
    state, reason, _ = state_of(workdir, job)
    if state == WAITING and job.parent and not run_of(workdir, job).exists():
        above, why = standing(workdir, jobs, job.parent)
        if above == FAILED:
            return FAILED, because(job.parent, why)
    return state, reason


def because(parent: str, reason: str | None) -> str:
    """Why a job cannot be."""
    return f"its shared run {parent} failed: {reason}"


def progress_of(workdir: pathlib.Path, job: Job) -> tuple[str, float]:
    """Where its run is, in words and as a share of its iterations."""
    lengths, row = job.lengths, last_row(run_of(workdir, job) / "metrics.jsonl")
    stage = row.get("stage")
    if stage not in lengths:
        return "", 0.0
    done = row.get("iteration", 0) + ("learning_rate" in row)  # updates count from 0
    names, total = list(lengths), sum(lengths.values())
    before = sum(lengths[name] for name in names[: names.index(stage)])
    words = f"{stage} {done}/{lengths[stage]}" if lengths[stage] else stage
    return words, (before + min(done, lengths[stage])) / max(total, 1)


def last_row(file: pathlib.Path) -> Row:
    """The last whole row of a journal that is being written, or {}."""
    try:
        with open(file, "rb") as stream:
            stream.seek(-min(TAIL, file.stat().st_size), 2)
            lines = stream.read().split(b"\n")[:-1]
        row = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def news_of(workdir: pathlib.Path, job: Job) -> int:
    """How many bytes its run has written into journals: where this stands still, it hangs."""
    size, run = 0, run_of(workdir, job)
    for pattern in ("*.jsonl", "[!c]*/*.jsonl", "[!c]*/*/*.jsonl"):  # none below checkpoints/
        for path in run.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
    return size


def evaluated(workdir: pathlib.Path, job: Job) -> tuple[str | None, dict[str, Any]]:
    """Its last evaluation stage, and what that has measured by policy."""
    config = job.config
    names = [n for n in config["pipeline"] if config["stages"][n]["kind"] == "evaluate"]
    if not names:
        return None, {}
    file = run_of(workdir, job) / "evaluations" / f"{names[-1]}.json"
    try:
        return names[-1], json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return names[-1], {}


def accuracy_of(workdir: pathlib.Path, job: Job) -> float | None:
    """Right answers of what it is about, in its last evaluation."""
    found = evaluated(workdir, job)[1]
    last = found[last_policy(job.config["stages"], list(found))] if found else {}
    return last.get("accuracy/strict", last.get("sampled/accuracy/strict"))
