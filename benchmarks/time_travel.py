"""Random updates of runs made again: are they bit-equal, and how far is an update foretold?

    python benchmarks/time_travel.py [RUN ...] [--updates=20] [--seed=0] [--runs=runs/time_travel]

Without runs it makes three of its own, with `launch.py` in processes of their own: all parameters
with four updates per iteration, an adapter with groups refilled and two rewards, and one whose
learning rate is ten times the tiny experiment's. They keep a checkpoint of each iteration. Every
update is then made again in a copy of the directory (of links) that has a checkpoint every EVERY
updates alone, and that of the update itself, with which the state is compared.

XLA's results depend on how many threads it has: this process must have as many as the runs had.
Prints a table of the updates, and one of the forecast's correlation by learning rate.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import base, tiny
from grpo.replays.forecast import SCALES
from grpo.replays.looked_into import Wanted, looked_into
from grpo.replays.place import checkpoints_of_run, nearest_checkpoint, place_of, rows_of
from grpo.replays.report import Found
from grpo.reporting.progress import Progress, table
from grpo.reporting.text import number
from grpo.runs.compile_cache import keep_programs

ROOT = pathlib.Path(__file__).parent.parent
VARIANTS = ("epochs", "adapter", "fast")
EVERY = 5
STAGE = "grpo"


def get_config(variant: str = ""):
    """The three runs."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    config = tiny.get_config()
    config.stages.sft.steps = 100
    stage = config.stages.grpo
    stage.update(iterations=12, prompts=8, group=4, microbatches=2, evaluate_every=0)
    stage.checkpoint_every = 1
    config.checkpoint.keep_last = 1000
    if variant == "epochs":
        stage.update(epochs=2, minibatches=2, iterations=5)
    elif variant == "adapter":
        stage.lora.rank = 8
        stage.update(dynamic_sampling="refill", max_rounds=2)
        stage.optimizer.learning_rate = 1e-3
        stage.rewards.strict_format = base.reward(0.2, 0.0, 1.0)
    else:
        stage.optimizer.learning_rate = 1e-3
    config.pipeline = ("sft", "grpo")
    return config


class Seen(NamedTuple):
    """An update that was made again."""

    run: str
    begin: int  # the checkpoint that it was made again from
    seconds: float
    found: Found


def made(folder: pathlib.Path) -> list[pathlib.Path]:
    """The three runs; those that are there are not made again."""
    for variant in VARIANTS:
        config = f"--config={pathlib.Path(__file__).relative_to(ROOT)}:{variant}"
        command = [
            sys.executable,
            "launch.py",
            config,
            f"--workdir={(folder / variant).absolute()}",
        ]
        if not (folder / variant / "DONE").exists():
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [folder / variant for variant in VARIANTS]


def drawn(runs: Sequence[pathlib.Path], count: int, seed: int) -> list[tuple[pathlib.Path, int]]:
    """Random updates of the runs, none of them twice."""
    every = [
        (run, row["step"])
        for run in runs
        for row in rows_of(run, "metrics")
        if row["stage"] == STAGE and "loss" in row
    ]
    chosen = np.random.RandomState([seed, count]).permutation(len(every))[:count]
    return [every[i] for i in chosen]


def thinned(run: pathlib.Path, step: int, folder: pathlib.Path) -> None:
    """The run's directory as links, with few of the checkpoints of its stage."""
    for path in run.absolute().iterdir():
        if path.name != "checkpoints":
            (folder / path.name).symlink_to(path)
    (folder / "checkpoints" / STAGE).mkdir(parents=True)
    for path in (run.absolute() / "checkpoints").iterdir():
        if path.name != STAGE:
            (folder / "checkpoints" / path.name).symlink_to(path)
    checkpoints = checkpoints_of_run(place_of(run, STAGE, step))
    for there in checkpoints.steps():
        if there % EVERY == 0 or there == step:
            path = checkpoints.path(there)
            (folder / "checkpoints" / STAGE / path.name).symlink_to(path.absolute())


def seen(run: pathlib.Path, step: int) -> Seen:
    """One update, made again."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        thinned(run, step, folder)
        place, began = place_of(folder, STAGE, step), time.monotonic()
        wanted = Wanted({}, forecast=True, by_reward=False)
        found = looked_into(place, wanted, None, Progress(sys.stderr, every_s=1000.0))
        return Seen(run.name, nearest_checkpoint(place).step, time.monotonic() - began, found)


def tables(all_seen: Sequence[Seen]) -> str:
    """The updates, and the forecast by run and learning rate."""
    lines = [
        [
            one.run,
            str(one.found.place.step),
            str(one.begin),
            ", ".join(one.found.verdict.compared),
            f"{one.seconds:.1f}",
            "; ".join(one.found.verdict.different[:1]) or "bit-equal",
        ]
        for one in all_seen
    ]
    equal = sum(not one.found.verdict.different for one in all_seen)
    head = ["run", "update", "from", "compared", "s", "verdict"]
    return "\n\n".join([
        table(head, lines),
        f"{equal} of {len(all_seen)} are bit-equal",
        table(
            ["run", "updates", "rate", *(f"x {scale:g}" for scale in SCALES)],
            [forecasts(run, all_seen) for run in dict.fromkeys(one.run for one in all_seen)],
        ),
    ])  # fmt: skip


def forecasts(run: str, all_seen: Sequence[Seen]) -> list[str]:
    """Median and range of the correlations of a run's updates, at each scale of its rate."""
    fits: list[Any] = [one.found.fits for one in all_seen if one.run == run]
    cells = []
    for place in range(len(SCALES)):
        told = np.array([of[place].correlation for of in fits], float)
        told = told[~np.isnan(told)]
        cells.append(
            f"{np.median(told):.3f} ({told.min():.3f} to {told.max():.3f})" if told.size else "-"
        )
    rates = [of[SCALES.index(1.0)].learning_rate for of in fits]
    return [run, str(len(fits)), f"{number(min(rates))} to {number(max(rates))}", *cells]


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="*", type=pathlib.Path)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs/time_travel")
    flags = parser.parse_args()
    keep_programs()
    runs = flags.run or made(flags.runs)
    print(tables([seen(*one) for one in sorted(drawn(runs, flags.updates, flags.seed))]))


if __name__ == "__main__":
    main()
