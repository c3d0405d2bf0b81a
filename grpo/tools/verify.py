"""Whether a run's directory is whole, and where it can be gone on from:

    python -m grpo.tools.verify runs/tiny

A line for each thing that is looked at: `ok` or `BAD`, and its name. Nothing is computed, changed
or moved. The exit code is 0 if all is whole, 1 if something is BAD, 2 if it is no run.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grpo.reporting.html.run_files import NoRunError, read_run
from grpo.runs.run import checkpoints_of
from grpo.storage.journal import JournalError, lines_of
from grpo.storage.snapshot import read_about, snapshot_fault
from grpo.storage.vouched import journal_fault, read_marks

Config = Mapping[str, Any]
OBJECTS = (
    "config.json",
    "data.json",
    "inputs.json",
    "DONE",
    "evaluations/*.json",
    "rewards/*.json",
)
JOURNALS = ("*.jsonl", "evaluations/*.jsonl", "preferences/*.jsonl", "traces/*/*.jsonl",
            "judges/*.jsonl")  # fmt: skip


class Line(NamedTuple):
    """What is said of one thing."""

    is_bad: bool
    text: str

    def __str__(self) -> str:
        return f"{'BAD' if self.is_bad else 'ok '}  {self.text}"


def looked_at(workdir: pathlib.Path) -> Iterator[Line]:
    """A line for everything in a run's directory, in the order in which it matters."""
    run = read_run(workdir)
    yield Line(run.state == "failed", f"the run: {run.state}{run.reason and f': {run.reason}'}")
    yield from objects(workdir)
    yield from journals(workdir)
    stages = run.config.get("pipeline") or ()
    newest = {}
    for stage in stages:
        yield from checkpoints(run.config, workdir, stage, newest)
    yield from vouched(workdir, newest)
    where = [f"{stage} at update {path.name.lstrip('0') or '0'}" for stage, path in newest.items()]
    yield Line(False, f"it goes on from: {', '.join(where) or 'its beginning'}")


def objects(workdir: pathlib.Path) -> Iterator[Line]:
    """The files that are one JSON object."""
    for pattern in OBJECTS:
        for file in sorted(workdir.glob(pattern)):
            try:
                is_object = isinstance(json.loads(file.read_text("utf-8")), dict)
                reason = "" if is_object else "holds no object"
            except (OSError, ValueError, RecursionError) as error:
                reason = " ".join(str(error).split())[:100]
            yield line_of(file.relative_to(workdir), reason, "can be read")


def journals(workdir: pathlib.Path) -> Iterator[Line]:
    """The files of a row per line."""
    for pattern in JOURNALS:
        for file in sorted(workdir.glob(pattern)):
            rows, torn = 0, ""
            try:
                for _, row in lines_of(file):
                    rows += row is not None
                    torn = ", and a torn one that the next launch drops" if row is None else ""
                reason = ""
            except (OSError, JournalError) as error:
                reason = str(error).removeprefix(f"{file}:")
            yield line_of(file.relative_to(workdir), reason, f"{rows} rows{torn}")


def checkpoints(
    config: Config, workdir: pathlib.Path, stage: str, newest: dict[str, pathlib.Path]
) -> Iterator[Line]:
    """The steps of a stage; the newest whole one goes into `newest`."""
    kept = checkpoints_of(config, workdir, stage)
    for path in kept.paths():
        reason, about = snapshot_fault(path), ""
        if not reason:
            newest[stage] = path
            about = "whole, the stage's end" if read_about(path).final else "whole"
        yield line_of(path.relative_to(workdir), reason, about)
    for path in sorted((kept.root / "quarantine").glob("*")):
        yield Line(False, f"{path.relative_to(workdir)}: was found broken, and is not read")


def vouched(workdir: pathlib.Path, newest: Mapping[str, pathlib.Path]) -> Iterator[Line]:
    """Whether the journals hold what the newest whole steps vouch for."""
    for stage, path in newest.items():
        for name, mark in read_marks(path).items():
            reason = journal_fault(workdir / f"{name}.jsonl", mark)
            lost = f", {mark.lost} more could not be written" if mark.lost else ""
            yield line_of(
                f"{stage} {path.name} on {name}.jsonl", reason, f"{mark.rows} rows are there{lost}"
            )


def line_of(name: object, reason: str, fine: str) -> Line:
    """A line with what is wrong, or with what is fine."""
    return Line(bool(reason), f"{name}: {reason or fine}")


def main(argv: list[str]) -> int:
    """Prints the lines."""
    if len(argv) != 2 or argv[1].startswith("-"):
        print("error: expected python -m grpo.tools.verify RUN, a run's directory", file=sys.stderr)
        return 2
    try:
        lines = list(looked_at(pathlib.Path(argv[1])))
    except NoRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, lines)))
    return int(any(line.is_bad for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
