"""An update of a run, and the nearest checkpoint before it, from which it is made again.

The nearest checkpoint is one at or before the beginning of the update's iteration, so that the
iteration's completions are sampled and scored again and not read. Without one, the stage begins at
its beginning, which takes nothing but the end of the stage before it.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.checks.problems import fields, stage_fields
from grpo.checks.rules import COMMON
from grpo.data.nearest import nearest
from grpo.replays.kinds.grpo import GRPO
from grpo.replays.kinds.kind import Kind
from grpo.replays.kinds.preference import PREFERENCE
from grpo.replays.kinds.sft import SFT
from grpo.runs.run import checkpoints_of
from grpo.storage.checkpoints import Checkpoints
from grpo.storage.journal import read_journal
from grpo.storage.snapshot import snapshot_fault

Config = Mapping[str, Any]
KINDS: dict[str, Kind] = {"sft": SFT, "preference": PREFERENCE, "grpo": GRPO}
STAGES = {name: kind.stage for name, kind in KINDS.items()}


class ReplayError(ValueError):
    """What cannot be made again, in one line."""


class Place(NamedTuple):
    """An update of a run."""

    workdir: pathlib.Path
    config: Config  # as the run has it
    stage: str
    step: int
    iteration: int
    update: int  # of the iteration
    updates: int  # that an iteration has

    @property
    def first(self) -> int:
        """How many updates the stage made before this one's iteration."""
        return self.iteration * self.updates

    @property
    def kind(self) -> Kind:
        """What kind of stage it is."""
        return kind_of(self.config, self.stage)

    @property
    def files(self) -> list[str]:
        """What the stage has written beside journals and checkpoints, below the run's directory."""
        return [file.format(stage=self.stage) for file in self.kind.files]


def place_of(workdir: pathlib.Path, stage: str | None, step: int) -> Place:
    """An update by its number, from 1 on, and its stage; None: `stage_of` finds it."""
    config = config_of(workdir)
    name = stage_of(config, stage)
    for line in [*fields(config, COMMON, ""), *stage_fields(name, config["stages"][name], STAGES)]:
        raise ReplayError(f"{workdir}: its config is that of another version of this code: {line}")
    rows = [row for row in rows_of(workdir, "metrics") if row["stage"] == name]
    done = max((row["step"] for row in rows if "loss" in row), default=0)
    if not 1 <= step <= done:
        raise ReplayError(f"--step={step}: {name} of {workdir} has made {done} updates")
    updates = kind_of(config, name).updates(config["stages"][name])
    iteration, update = divmod(step - 1, updates)
    return Place(workdir, config, name, step, iteration, update, updates)


def config_of(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a run, with tuples where a config has them."""
    try:
        return tuples(json.loads((workdir / "config.json").read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        raise ReplayError(f"{workdir}: is no directory of a run: it has no config.json") from None


def tuples(tree: Any) -> Any:
    """JSON has lists where a config has tuples."""
    if isinstance(tree, dict):
        return {key: tuples(value) for key, value in tree.items()}
    return tuple(map(tuples, tree)) if isinstance(tree, list) else tree


def kind_of(config: Config, stage: str) -> Kind:
    """The kind of a stage that can be made again."""
    return KINDS[config["stages"][stage]["kind"]]


def stage_of(config: Config, named: str | None) -> str:
    """The stage of that name, or the only one that can be made again, or that is of kind grpo."""
    stages, pipeline = config["stages"], config["pipeline"]
    can = [name for name in pipeline if stages[name]["kind"] in KINDS]
    of_grpo = [name for name in can if stages[name]["kind"] == "grpo"]
    if named is None:
        for only in (can, of_grpo):
            if len(only) == 1:
                return only[0]
        raise ReplayError(f"--stage is missing: name one of {', '.join(can) or '(there is none)'}")
    if named not in can:
        kind = f" of kind {stages[named]['kind']}" if named in pipeline else ""
        raise ReplayError(
            f"--stage={named}{kind}: stages of kind {', '.join(KINDS)} are made again, here: "
            f"{', '.join(can) or 'none'}{nearest(named, can)}"
        )
    return named


def rows_of(workdir: pathlib.Path, journal: str) -> list[dict[str, Any]]:
    """The rows of a journal of a run; none of one that is not there."""
    path = workdir / f"{journal}.jsonl"
    return read_journal(path) if path.is_file() else []


class Nearest(NamedTuple):
    """The checkpoint that an update is made again from."""

    step: int  # 0: the beginning of the stage
    path: pathlib.Path | None  # None: there is none
    passed: list[str]  # those that are broken
    later: list[int]  # those that came too late


def nearest_checkpoint(place: Place) -> Nearest:
    """The last whole one at or before the beginning of the iteration."""
    checkpoints = checkpoints_of_run(place)
    passed = []
    steps = checkpoints.steps()
    later = [step for step in steps if step > place.first]
    for step in reversed([step for step in steps if step <= place.first]):
        if not (reason := snapshot_fault(checkpoints.path(step))):
            return Nearest(step, checkpoints.path(step), passed, later)
        passed.append(f"{checkpoints.path(step)}: {reason}")
    return Nearest(0, None, passed, later)


def checkpoints_of_run(place: Place) -> Checkpoints:
    """The checkpoints of the run's stage."""
    return checkpoints_of(place.config, place.workdir, place.stage)


def retention(place: Place, found: Nearest) -> str:
    """From where it is made again, and what would have left a nearer checkpoint."""
    again = place.step - found.step
    made = f"{again} update{'s are' if again > 1 else ' is'} made again"
    if found.path is not None:
        return f"from the checkpoint of update {found.step}: {made}"
    if place.first == 0:
        return f"from the beginning of the stage: {made}"
    left = ", ".join(map(str, found.later)) or "none"
    return (
        f"from the beginning of the stage: {made}; checkpoints left: {left}; more are kept by "
        "checkpoint.keep_last, and made by the stage's checkpoint_every"
    )
