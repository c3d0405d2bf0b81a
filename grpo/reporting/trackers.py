"""Metrics elsewhere: rows of metrics.jsonl, sent on to TensorBoard, W&B or trackio.

A tracker is opened by a function of the run's directory and config, in the table TRACKERS; what it
returns takes the stage, the step and the metrics of a row. Each stage has an axis of its own: a
metric is named <stage>/<metric>, and its step is the update of the stage. The packages are extras,
imported where one is asked for:

    tensorboard    tensorboardX; files in <run>/tensorboard; of what is sent again TensorBoard
                   keeps the last
    wandb          off without WANDB_API_KEY, unless WANDB_MODE is offline
    trackio        a local database, no account

Nothing of a run knows of this: a process of its own reads the journal (grpo/tools/track.py), so
that no tracker can slow, stop or change training.
"""

import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.storage.journal import Row

PROJECT = "gemma-grpo"
PLACE = ("stage", "step", "iteration", "policy")
Metrics = Mapping[str, float]


class Tracker(NamedTuple):
    """An open tracker."""

    send: Callable[[str, int, Metrics], None]
    close: Callable[[], None]


class TrackerOffError(Exception):
    """A tracker that cannot be opened; one line."""


def package(name: str, extra: str) -> Any:
    """A package of an extra."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TrackerOffError(
            f"{name} is not installed: pip install 'gemma-grpo[{extra}]'"
        ) from None


def tensorboard(workdir: pathlib.Path, config: Mapping[str, Any]) -> Tracker:
    """Event files in the run's directory."""
    module = package("tensorboardX", "tensorboard")
    writer = module.SummaryWriter(str(workdir / "tensorboard"), purge_step=0)

    def send(stage: str, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            writer.add_scalar(f"{stage}/{name}", value, step)

    return Tracker(send, writer.close)


def wandb(workdir: pathlib.Path, config: Mapping[str, Any]) -> Tracker:
    """A run of Weights & Biases."""
    if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline":
        raise TrackerOffError("wandb is off: neither WANDB_API_KEY nor WANDB_MODE=offline is set")
    module = package("wandb", "wandb")
    run = module.init(project=PROJECT, name=workdir.name, config=dict(config), dir=str(workdir))
    for stage in config.get("pipeline", ()):
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
    return Tracker(stepped(run.log), run.finish)


def trackio(workdir: pathlib.Path, config: Mapping[str, Any]) -> Tracker:
    """A run of trackio, on this machine."""
    module = package("trackio", "trackio")
    module.init(project=PROJECT, name=workdir.name, config=dict(config))
    return Tracker(stepped(module.log), module.finish)


def stepped(log: Callable[[dict[str, float]], None]) -> Callable[[str, int, Metrics], None]:
    """What sends the step among the metrics, where a tracker would have one axis for all stages."""

    def send(stage: str, step: int, metrics: Metrics) -> None:
        log({f"{stage}/step": step, **{f"{stage}/{name}": x for name, x in metrics.items()}})

    return send


TRACKERS: dict[str, Callable[[pathlib.Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "trackio": trackio,
}


def new_rows(rows: Sequence[Row], seen: set[tuple]) -> Iterator[tuple[str, int, Metrics]]:
    """The numbers of rows that were not seen yet, which are then.

    A run that resumes writes again what it had written after its last checkpoint; that counts once.
    """
    for row in rows:
        numbers = {
            name: value
            for name, value in row.items()
            if name not in PLACE and isinstance(value, int | float) and not isinstance(value, bool)
        }
        stage, step = row.get("stage"), row.get("step", 0)
        if policy := row.get("policy"):
            numbers = {f"{policy}/{name}": value for name, value in numbers.items()}
        key = (stage, step, policy, any(name.startswith("eval/") for name in numbers))
        if isinstance(stage, str) and isinstance(step, int) and numbers and key not in seen:
            seen.add(key)
            yield stage, step, numbers
