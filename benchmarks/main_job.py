"""The main job on five seeds, with its controls: what docs/main_job.md and README.md show.

    python benchmarks/main_job.py [--seeds=0,1,2,3,4] [--runs=runs/main_job]

Each seed is one run of configs/tiny.py:controls: supervised training, GRPO, their evaluation (up
to here this is configs/tiny.py itself, and its wall time is taken), then from the same end of
supervised training more of it for as long as GRPO took, and GRPO with shuffled rewards. Runs that
are there are not made again. Writes docs/main_job.md and docs/main_job.svg.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from page import put

from grpo.reporting.curve import Panel, Series, Span, panels_svg
from grpo.reporting.learning_curves import ACCURACY, BELOW, Part, parts_of, series_of
from grpo.reporting.progress import table
from grpo.storage.journal import read_journal

ROOT = pathlib.Path(__file__).parent.parent
STAGES = {"grpo": "GRPO", "more_sft": "more supervised", "shuffled": "shuffled rewards"}
RIGHT = "accuracy/strict"


def run(seed: int, workdir: pathlib.Path) -> None:
    """One run to its end, and the wall time of the main job's part, all compiling included."""
    if (workdir / "DONE").exists():
        return
    began = time.time()
    command = [sys.executable, "launch.py", "--config=configs/tiny.py:controls"]
    subprocess.run(
        [*command, f"--config.seed={seed}", f"--workdir={workdir}"],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
        check=True,
    )
    wall = (workdir / "evaluations" / "evaluate.json").stat().st_mtime - began
    (workdir / "wall.json").write_text(json.dumps({"seconds": wall}))


def stage_seconds(workdir: pathlib.Path) -> dict[str, float]:
    """What each training stage took, compiling and running evaluations included."""
    return {row["stage"]: row["seconds"] for row in read_journal(workdir / "timing.jsonl")}


def evaluations(workdir: pathlib.Path, stage: str) -> list[dict[str, Any]]:
    """The running evaluations of a stage."""
    rows = read_journal(workdir / "metrics.jsonl")
    return [row for row in rows if row["stage"] == stage and f"eval/{RIGHT}" in row]


def percent(metrics: dict[str, float], name: str = RIGHT) -> str:
    """A share with its interval."""
    low, high = metrics[f"{name}/low"], metrics[f"{name}/high"]
    return f"{100 * metrics[name]:.1f} ({100 * low:.0f} to {100 * high:.0f})"


def results(runs: dict[int, pathlib.Path]) -> str:
    """The table, a line per seed and their mean."""
    header = ["seed", "after SFT", *STAGES.values(), "GRPO gains"]
    header += ["s: SFT", "s: GRPO", "s: more", "s: shuffled", "s: main job"]
    lines, columns = [], []
    for seed, workdir in runs.items():
        found = json.loads((workdir / "evaluations" / "controls.json").read_text("utf-8"))
        seconds = stage_seconds(workdir)
        wall = json.loads((workdir / "wall.json").read_text())["seconds"]
        gain = found["grpo"][RIGHT] - found["sft"][RIGHT]
        times = [*(seconds[stage] for stage in ("sft", *STAGES)), wall]
        shares = [found[policy][RIGHT] for policy in ("sft", *STAGES)]
        columns.append([*shares, gain, *times])
        cells = [percent(found[policy]) for policy in ("sft", *STAGES)]
        lines.append([str(seed), *cells, f"{100 * gain:+.1f}", *(f"{x:.0f}" for x in times)])
    means = [statistics.mean(column) for column in zip(*columns, strict=True)]
    cells = [f"{100 * x:.1f}" for x in means[:4]]
    lines.append(["mean", *cells, f"{100 * means[4]:+.1f}", *(f"{x:.0f}" for x in means[5:])])
    return table(header, lines)


def more(runs: dict[int, pathlib.Path]) -> str:
    """What else changed, the mean over seeds."""
    names = {
        "format/strict": "in form", "length/mean": "tokens", "pass@1": "pass@1", "pass@8": "pass@8",
        "maj@8": "maj@8",
    }  # fmt: skip
    lines = []
    for policy, label in {"sft": "after SFT", **STAGES}.items():
        found = [
            json.loads((workdir / "evaluations" / "controls.json").read_text("utf-8"))[policy]
            for workdir in runs.values()
        ]
        means = {name: statistics.mean(metrics[name] for metrics in found) for name in names}
        cells = [
            f"{x:.1f}" if name == "length/mean" else f"{100 * x:.1f} %"
            for name, x in means.items()
        ]  # fmt: skip
        lines.append([label, *cells])
    return table(["", *names.values()], lines)


def over_stages(runs: Sequence[pathlib.Path], stages: dict[str, str]) -> list[Series]:
    """Accuracy on validation problems, over percents of each stage: every run, and their mean."""
    series = []
    for stage, label in stages.items():
        every = [evaluations(workdir, stage) for workdir in runs]
        last = every[0][-1]["iteration"]
        x = [100 * row["iteration"] / last for row in every[0]]
        lines = [[row[f"eval/{RIGHT}"] for row in rows] for rows in every]
        series += [Series(label, x, y, faint=True) for y in lines]
        series.append(Series(label, x, [statistics.mean(y) for y in zip(*lines, strict=True)]))
    return series


def over_time(every: Sequence[list[Part]], metric: str) -> list[Series]:
    """A metric of each stage over seconds of training: every run, and their mean."""
    series = []
    for parts in zip(*every, strict=True):
        label = STAGES.get(parts[0].name, parts[0].name)
        lines = [series_of(part, metric, 1.0)._replace(name=label) for part in parts]
        if lines[0].x:
            x, y = (
                [statistics.mean(column) for column in zip(*columns, strict=True)]
                for columns in ([one.x for one in lines], [one.y for one in lines])
            )
            faint = [one._replace(low=None, high=None, faint=True) for one in lines]
            series += [*faint, Series(label, x, y)]
    return series


def picture(runs: dict[int, pathlib.Path]) -> str:
    """Training on one axis of time: every seed, and the mean."""
    every = [
        parts_of(
            json.loads((workdir / "config.json").read_text("utf-8")),
            read_journal(workdir / "metrics.jsonl"),
            read_journal(workdir / "timing.jsonl"),
        )
        for workdir in runs.values()
    ]
    accuracy = f"greedy, strict form; {len(runs)} seeds and their mean"
    panels = [Panel(over_time(every, ACCURACY), accuracy, percent=True)]
    panels += [Panel(over_time(every, metric), what) for metric, what in BELOW.items()]
    measured = {one.name for one in panels[0].series}
    spans = [
        Span(
            parts[0].name,
            statistics.mean(part.begin for part in parts),
            statistics.mean(part.end for part in parts),
        )
        for parts in zip(*every, strict=True)
        if STAGES.get(parts[0].name, parts[0].name) not in measured
    ]
    return panels_svg(
        panels,
        title="Right answers to validation problems while training",
        x_label="seconds of training",
        spans=spans,
    )


def main() -> None:
    """Runs what is missing, then writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "main_job")
    arguments = parser.parse_args()
    runs = {int(seed): arguments.runs.absolute() / seed for seed in arguments.seeds.split(",")}
    for seed, workdir in runs.items():
        run(seed, workdir)
    (ROOT / "docs" / "main_job.svg").write_text(picture(runs), "utf-8")
    put(ROOT / "docs" / "main_job.md", "results", f"{results(runs)}\n\n{more(runs)}")
    put(ROOT / "README.md", "main job", results(runs))
    print(results(runs))


if __name__ == "__main__":
    main()
