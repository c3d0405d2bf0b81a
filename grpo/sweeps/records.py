"""What a sweep leaves for others to read: sweep.json and cells.jsonl (grpo/sweeps/__init__.py).

Both are made anew out of what the jobs have left, and replaced as a whole: whichever of several
drivers writes last, they say what the directory holds.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.evaluations import share
from grpo.reporting.progress import table
from grpo.reporting.text import duration
from grpo.storage.journal import Row, encode
from grpo.storage.whole import put
from grpo.sweeps.cells import Cell
from grpo.sweeps.jobs import Job, accuracy_of, evaluated, launches_of, standing


def row_of(workdir: pathlib.Path, cell: Cell, jobs: Mapping[str, Job]) -> Row:
    """The row of a cell."""
    job = jobs[cell.name]
    state, reason = standing(workdir, jobs, cell.name)
    stage, metrics = evaluated(workdir, job)
    return {
        "cell": cell.cell,
        "ablation": cell.ablation,
        "seed": cell.seed,
        "directory": job.directory,
        "state": state,
        "reason": reason,
        "seconds": seconds_of(workdir, job),
        "shared": jobs[job.parent].directory if job.parent else None,
        "changed": dict(cell.changed),
        "stage": stage,
        "metrics": metrics,
    }


def seconds_of(workdir: pathlib.Path, job: Job) -> float:
    """The time of all launches that were seen to end."""
    return round(sum(row["seconds"] for row in launches_of(workdir, job)), 3)


def write_cells(workdir: pathlib.Path, cells: Sequence[Cell], jobs: Mapping[str, Job]) -> None:
    """cells.jsonl: every cell, whoever runs it."""
    rows = [row_of(workdir, cell, jobs) for cell in cells]
    put(workdir / "cells.jsonl", b"".join(map(encode, rows)))


def write_sweep(workdir: pathlib.Path, sweep: Mapping[str, Any], path: str) -> None:
    """sweep.json: what was asked, and by which file."""
    put(workdir / "sweep.json", json.dumps({"path": path, **sweep}, indent=1).encode() + b"\n")


def summary(workdir: pathlib.Path, cells: Sequence[Cell], jobs: Mapping[str, Job]) -> str:
    """A table of all cells."""
    lines = []
    for cell in cells:
        job = jobs[cell.name]
        state, reason = standing(workdir, jobs, cell.name)
        seconds = seconds_of(workdir, job)
        lines.append([
            cell.ablation or "base", str(cell.seed), state, share(accuracy_of(workdir, job)),
            duration(seconds) if seconds else "", reason or "",
        ])  # fmt: skip
    return table(["ablation", "seed", "state", "right", "time", "reason"], lines)


def strangers(workdir: pathlib.Path, jobs: Mapping[str, Job]) -> list[str]:
    """Directories of runs that are no longer part of the sweep, as their configs have changed."""
    known = {job.directory for job in jobs.values()}
    there = [
        f"{place}/{path.name}"
        for place in ("cells", "shared")
        for path in sorted((workdir / place).glob("*"))
        if path.suffix != ".tmp"  # a directory that was being made
    ]
    return [directory for directory in there if directory not in known]
