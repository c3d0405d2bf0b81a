"""The report of a run as one HTML file, report.html in its directory.

It can be made at any time, of a run that goes on, has failed or is finished; the pipeline makes it
at the end and after each running evaluation. The file is replaced as a whole, so that whoever reads
it has an old one or a new one.
"""

import datetime
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo.reporting.html import tables
from grpo.reporting.html.answers import answers
from grpo.reporting.html.curves import curves
from grpo.reporting.html.overview import overview
from grpo.reporting.html.page import page
from grpo.reporting.html.run_files import read_run
from grpo.reporting.html.viewer import viewer

FILE = "report.html"


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
        tables.report_on("Reward models", "rewards", run.rewards),
        tables.timing(run.timing),
        tables.config(run.config, against, name),
        tables.environment(run.environment),
        tables.report_on("Data", "data", run.data),
    ]
    return page(run.name, overview(run, datetime.datetime.now(datetime.UTC)), sections)


def write_report(workdir: pathlib.Path) -> pathlib.Path:
    """Writes the page into the run's directory."""
    file = workdir / FILE
    put(file, report(workdir))
    return file


def put(file: pathlib.Path, text: str) -> None:
    """Replaces a file as a whole."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    draft.write_text(text, "utf-8")
    draft.replace(file)
