"""Random updates of runs made again: are they bit-equal, and how far is an update foretold?

    python benchmarks/time_travel.py [RUN ...] [--updates=40] [--seed=0] [--runs=runs/time_travel]

Of runs that are named every stage is drawn from that can be made again. Without any it makes five
of its own, with `launch.py` in processes of their own, and draws from the stages that DRAWN says:

    epochs        GRPO of all parameters with four updates per iteration
    adapter       of an adapter, with groups refilled and two rewards
    fast          with a learning rate ten times the tiny experiment's
    solutions     supervised training of all parameters, and of an adapter on packed rows
    preferences   DPO of all parameters, and KTO of an adapter, on pairs that the policy made

They keep a checkpoint of each iteration. Every update is then made again in a copy of the directory
(of links) that has a checkpoint every EVERY updates of its stage alone, and that of the update
itself, with which the state is compared.

XLA's results depend on how many threads it has: this process must have as many as the runs had.
Prints a table of the updates, and one of the forecast's correlation by learning rate.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import base, tiny
from grpo.replays.forecast import SCALES
from grpo.replays.looked_into import Wanted, looked_into
from grpo.replays.place import (
    KINDS,
    checkpoints_of_run,
    config_of,
    nearest_checkpoint,
    place_of,
    rows_of,
)
from grpo.replays.report import Found
from grpo.reporting.progress import Progress, table
from grpo.reporting.text import number
from grpo.runs.compile_cache import keep_programs

ROOT = pathlib.Path(__file__).parent.parent
DRAWN = {  # variant -> its stages that updates are drawn from
    "epochs": ("grpo",),
    "adapter": ("grpo",),
    "fast": ("grpo",),
    "solutions": ("full", "packed"),
    "preferences": ("dpo", "kto"),
}
EVERY = 5


def get_config(variant: str = ""):
    """The five runs."""
    if variant not in DRAWN:
        raise ValueError(f"variant {variant!r}: expected one of {', '.join(DRAWN)}")
    config = tiny.get_config()
    config.stages.sft.steps = 100
    config.checkpoint.keep_last = 1000
    making = {"solutions": with_solutions, "preferences": with_preferences}
    making.get(variant, with_grpo)(config, variant)
    for name in DRAWN[variant]:
        config.stages[name].update(microbatches=2, evaluate_every=0, checkpoint_every=1)
    return config


def with_grpo(config: base.ConfigDict, variant: str) -> None:
    """GRPO after the supervised training."""
    stage = config.stages.grpo
    stage.update(iterations=12, prompts=8, group=4)
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


def with_solutions(config: base.ConfigDict, variant: str) -> None:
    """More of the supervised training, twice from where it ends."""
    for name in DRAWN[variant]:
        config.stages[name] = stage = base.sft()
        stage.update(start="sft", steps=12, batch=16, max_target=31)
        stage.optimizer.learning_rate = 1e-3
    config.stages.packed.lora.rank = 8
    config.stages.packed.update(packing=160, batch=8)
    config.pipeline = ("sft", *DRAWN[variant])


def with_preferences(config: base.ConfigDict, variant: str) -> None:
    """Two losses on the same pairs, from the end of the supervised training."""
    config.stages.pairs = pairs = base.pairs()
    pairs.update(policy="sft", prompts=256, max_new_tokens=32)
    for name in DRAWN[variant]:
        config.stages[name] = stage = base.preference()
        stage.update(start="sft", steps=12, batch=16, max_completion=32)
        stage.loss.preset = name
        stage.optimizer.learning_rate = 1e-3
    config.stages.dpo.optimizer.learning_rate = 1e-4
    config.stages.kto.lora.rank = 8
    config.pipeline = ("sft", "pairs", *DRAWN[variant])


class Seen(NamedTuple):
    """An update that was made again."""

    run: str  # and its stage
    begin: int  # the checkpoint that it was made again from
    seconds: float
    found: Found


def made(folder: pathlib.Path) -> list[pathlib.Path]:
    """The five runs; those that are there are not made again."""
    for variant in DRAWN:
        config = f"--config={pathlib.Path(__file__).relative_to(ROOT)}:{variant}"
        command = [
            sys.executable,
            "launch.py",
            config,
            f"--workdir={(folder / variant).absolute()}",
        ]
        if not (folder / variant / "DONE").exists():
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [folder / variant for variant in DRAWN]


def stages_of(run: pathlib.Path, own: bool) -> Iterator[str]:
    """The stages of a run that updates are drawn from."""
    config = config_of(run)
    for name in config["pipeline"]:
        if name in DRAWN[run.name] if own else config["stages"][name]["kind"] in KINDS:
            yield name


def drawn(
    runs: Sequence[pathlib.Path], own: bool, count: int, seed: int
) -> list[tuple[pathlib.Path, str, int]]:
    """Random updates of the runs, none of them twice."""
    every = [
        (run, stage, row["step"])
        for run in runs
        for stage in stages_of(run, own)
        for row in rows_of(run, "metrics")
        if row["stage"] == stage and "loss" in row
    ]
    chosen = np.random.RandomState([seed, count]).permutation(len(every))[:count]
    return [every[i] for i in chosen]


def thinned(run: pathlib.Path, stage: str, step: int, folder: pathlib.Path) -> None:
    """The run's directory as links, with few of the checkpoints of its stage."""
    for path in run.absolute().iterdir():
        if path.name != "checkpoints":
            (folder / path.name).symlink_to(path)
    (folder / "checkpoints" / stage).mkdir(parents=True)
    for path in (run.absolute() / "checkpoints").iterdir():
        if path.name != stage:
            (folder / "checkpoints" / path.name).symlink_to(path)
    checkpoints = checkpoints_of_run(place_of(run, stage, step))
    for there in checkpoints.steps():
        if there % EVERY == 0 or there == step:
            path = checkpoints.path(there)
            (folder / "checkpoints" / stage / path.name).symlink_to(path.absolute())


def seen(run: pathlib.Path, stage: str, step: int) -> Seen:
    """One update, made again."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        thinned(run, stage, step, folder)
        place, began = place_of(folder, stage, step), time.monotonic()
        wanted = Wanted({}, forecast=True, by_reward=False)
        found = looked_into(place, wanted, None, Progress(sys.stderr, every_s=1000.0))
        seconds = time.monotonic() - began
        return Seen(f"{run.name}/{stage}", nearest_checkpoint(place).step, seconds, found)


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
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs/time_travel")
    flags = parser.parse_args()
    keep_programs()
    runs = flags.run or made(flags.runs)
    chosen = drawn(runs, not flags.run, flags.updates, flags.seed)
    print(tables([seen(*one) for one in sorted(chosen)]))


if __name__ == "__main__":
    main()
