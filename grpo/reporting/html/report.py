"""The report of a run as one HTML file, report.html in its directory.

It can be made at any time, of a run that goes on, has failed or is finished; the pipeline makes it
at its end and, at most every EVERY seconds, after a running evaluation. The file is replaced as a
whole, so that whoever reads it has an old one or a new one.
"""

import datetime
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from grpo.reporting.failure import reason_of
from grpo.reporting.html import settings, tables
from grpo.reporting.html.answers import answers
from grpo.reporting.html.curves import curves
from grpo.reporting.html.overview import overview
from grpo.reporting.html.page import page
from grpo.reporting.html.run_files import read_run
from grpo.reporting.html.viewer import viewer
from grpo.storage.whole import put

FILE = "report.html"
EVERY = 30.0  # seconds, at least, between two pages of a run that goes on
PACE = 2e6  # bytes of journals for which it waits another second; reading them takes 1/50 of it


def report(
    workdir: pathlib.Path, against: Mapping[str, Any] | None = None, name: str = "another"
) -> str:
    """The page of a run; its config is compared with another one, if there is one."""
    run = read_run(workdir)
    sections = [
        curves(run.metrics, run.config),
        viewer(workdir / "rollouts.jsonl"),
        tables.evaluations(run.evaluations),
        answers(workdir, list(run.evaluations), run.unread),
        settings.report_on("Reward models", "rewards", run.rewards),
        tables.timing(run.timing),
        settings.config(run.config, against, name),
        settings.environment(run.environment),
        settings.report_on("Data", "data", run.data),
    ]
    return page(run.name, overview(run, datetime.datetime.now(datetime.UTC)), sections)


def write_report(workdir: pathlib.Path, say: Callable[[str], None]) -> None:
    """Writes the page into the run's directory; what goes wrong is said, and ends nothing else."""
    try:
        put(workdir / FILE, report(workdir).encode())
    except Exception as error:
        say(f"no {FILE}: {reason_of(error)}")


def write_if_old(workdir: pathlib.Path, say: Callable[[str], None]) -> None:
    """The same while a run goes on, unless it was done a moment ago: longer, the more there is."""
    file = workdir / FILE
    try:
        journals = [*workdir.glob("*.jsonl"), *workdir.glob("evaluations/*.jsonl")]
        wait = EVERY + sum(journal.stat().st_size for journal in journals) / PACE
        age = time.time() - file.stat().st_mtime if file.exists() else wait
    except OSError as error:
        say(f"no {FILE}: {reason_of(error)}")
        return
    if not 0 <= age < wait:
        write_report(workdir, say)
