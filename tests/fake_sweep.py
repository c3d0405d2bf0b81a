"""A sweep of jobs that are no training runs (fake_cell.py), and a driver of it.

    python -m tests.fake_sweep WORKDIR '{"name": "behaviour", ...}' [WORKERS]

A name of the form "a<b" is a job a that begins from a shared run b.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from grpo.sweeps.display import Display
from grpo.sweeps.driver import Driver, Settings
from grpo.sweeps.jobs import Job

ROOT = pathlib.Path(__file__).parent.parent
CELL = ROOT / "tests" / "fake_cell.py"
CONFIG = {"pipeline": ("grpo",), "stages": {"grpo": {"kind": "grpo", "iterations": 4}}}
QUICK = Settings(
    workers=2, cell_seconds=20.0, beat_seconds=0.1, stale_seconds=60.0, poll_seconds=0.02,
    retry_failed=False,
)  # fmt: skip


def jobs_of(behaviours: Mapping[str, str]) -> dict[str, Job]:
    """By name; those that others begin from are shared."""
    pairs = [name.partition("<") for name in behaviours]
    parents = {name: parent or None for name, _, parent in pairs}
    places = {name: "shared" if name in parents.values() else "cells" for name in parents}
    return {n: Job(n, f"{places[n]}/{n}", CONFIG, parent) for n, parent in parents.items()}


def driver_of(
    workdir: pathlib.Path, behaviours: Mapping[str, str], stream: TextIO, **changes
) -> Driver:
    """A driver of all cells."""
    jobs = jobs_of(behaviours)
    told = {name.partition("<")[0]: behaviour for name, behaviour in behaviours.items()}

    def command(job: Job) -> list[str]:
        return [sys.executable, str(CELL), str(workdir / job.directory), told[job.name]]

    cells = [name for name, job in jobs.items() if job.directory.startswith("cells/")]
    settings = QUICK._replace(**changes)
    return Driver(workdir, jobs, cells, command, settings, Display(stream, every_s=0), lambda: None)


def words_of(workdir: pathlib.Path | str, behaviours: str, workers: int = 2) -> list[str]:
    """What starts a driver at the top of the tree."""
    return [sys.executable, "-m", "tests.fake_sweep", str(workdir), behaviours, str(workers)]


@contextlib.contextmanager
def started(
    workdir: pathlib.Path, behaviours: Mapping[str, str], workers: int = 2
) -> Iterator[subprocess.Popen]:
    """A driver in a process of its own, which does not outlive its test."""
    words = words_of(workdir, json.dumps(behaviours), workers)
    driver = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with driver:
        try:
            yield driver
        finally:
            driver.kill()


def lines(file: pathlib.Path) -> list[str]:
    """The lines of a file, if there is one."""
    return file.read_text().splitlines() if file.exists() else []


def until(is_so: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits for something that comes."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


if __name__ == "__main__":
    there = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    sys.exit(driver_of(*there, sys.stderr, workers=int(sys.argv[3])).drive())
