"""Whether the disk has room for the checkpoints of a run, before it begins."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax

from grpo.runs.open_policy import is_checkpoint, run_of
from grpo.runs.policies import trains
from grpo.runs.run import Run, RunError
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.training.optimizer import optimizer_of
from grpo.training.train_step import init_state

Config = Mapping[str, Any]


def require_room(run: Run) -> None:
    """Refuses a run whose checkpoints would not fit, beside those that are there."""
    sizes = checkpoint_bytes(run.config)
    kept = {name: kept_of(run.config, name) for name in sizes}
    # One more of the largest, while it is written.
    needed = sum(sizes[name] * kept[name] for name in sizes) + max(sizes.values(), default=0)
    there = bytes_below(run.workdir / "checkpoints")
    free = shutil.disk_usage(run.workdir).free
    if needed > free + there:
        each = ", ".join(f"{name} {kept[name]} x {gigabytes(sizes[name])}" for name in sizes)
        raise RunError(
            f"--workdir={run.workdir}: checkpoints need {gigabytes(needed)} ({each}, and one while "
            f"it is written), {gigabytes(free + there)} are free or theirs: free some, lower "
            "checkpoint.keep_last, or name a directory on another disk"
        )


def checkpoint_bytes(config: Config) -> dict[str, int]:
    """The bytes of a checkpoint's arrays, by stage that trains."""
    base, found = base_of({**config, "model": sized(config["model"])}), {}
    for name in config["pipeline"]:
        stage = config["stages"][name]
        if trains(stage) or "optimizer" in stage:
            chain = optimizer_of(stage["optimizer"], 1)
            trainable = shapes_at_start(base, stage).trainable
            state = jax.eval_shape(lambda x, chain=chain: init_state(x, chain), trainable)
            found[name] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return found


def sized(model: Config) -> Config:
    """The model, or the one that the run of a checkpoint was begun with: of the same sizes."""
    while model["path"] is not None and is_checkpoint(model["path"]):
        model = {**model, **run_of(pathlib.Path(model["path"]))[0]["model"]}
    return model


def kept_of(config: Config, name: str) -> int:
    """How many checkpoints of a stage stay: the last ones, and the best where one is measured."""
    stage, last = config["stages"][name], config["checkpoint"]["keep_last"]
    amount = next((stage[field] for field in ("steps", "iterations") if field in stage), None)
    if amount is not None:
        last = min(last, amount // stage["checkpoint_every"] + 1)  # and its end
    return last + bool(stage.get("evaluate_every"))


def bytes_below(folder: pathlib.Path) -> int:
    """What the files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def gigabytes(size: int) -> str:
    """A number of bytes for readers."""
    return f"{size / 1e9:.3g} GB"
