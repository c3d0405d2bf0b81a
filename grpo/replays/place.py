"""Where the update of a run is made again: beside the run, from the nearest checkpoint before it.

In a scratch directory are links to what the run has left, and none to its journals: a stage writes
there what it wrote in the run. Nothing is written into the run's directory.

The nearest checkpoint is one at or before the beginning of the update's iteration, so that the
iteration's completions are sampled and scored again and not read. Without one, the stage begins at
its beginning, which takes nothing but the end of the stage before it. Other files of the stage are
taken along with a checkpoint; where it begins they are made again.
"""

import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
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
NEVER = 10**9
# What a run goes on writing, and what says how it ended.
OWN = ("lock", "DONE", "FAILED", "summary.md", "checkpoints", "judges")


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


def prepare(place: Place, found: Nearest, scratch: pathlib.Path) -> None:
    """Links to what the run has left, and the checkpoint that the stage is to go on from."""
    own = [place.workdir / file for file in place.files]
    for path in place.workdir.iterdir():
        if path in [file.parent for file in own]:
            (scratch / path.name).mkdir()
            for below in path.iterdir():
                if below not in own:
                    (scratch / path.name / below.name).symlink_to(below.absolute())
        elif path.name not in OWN and path.suffix not in (".jsonl", ".npz", ".tmp"):
            (scratch / path.name).symlink_to(path.absolute())
    for file in own:
        if found.path is not None and file.exists():
            shutil.copyfile(file, scratch / file.relative_to(place.workdir))
    folder, there = scratch / "checkpoints", place.workdir / "checkpoints"
    (folder / place.stage).mkdir(parents=True)
    for path in there.iterdir() if there.is_dir() else ():
        if path.name != place.stage:
            (folder / path.name).symlink_to(path.absolute())
    if found.path is not None:
        (folder / place.stage / found.path.name).symlink_to(found.path.absolute())


def config_to_replay(place: Place) -> dict[str, Any]:
    """The config of the run, but that nothing is measured and saved, and judges are not asked.

    What judges said is in their recordings; what had failed fails again.
    """
    stages, judges = dict(place.config["stages"]), {}
    stages[place.stage] = {
        **stages[place.stage], "evaluate_every": 0, "checkpoint_every": NEVER,
    }  # fmt: skip
    for name, judge in place.config["judges"].items():
        file = place.workdir / "judges" / f"{name}.jsonl"
        judges[name] = {**judge, "replay": judge["replay"] or str(file.absolute())}
    return {**place.config, "stages": stages, "judges": judges}


def lacking(place: Place) -> Iterator[str]:
    """What the run has not left that its stage begins with, a line each."""
    pipeline = place.config["pipeline"]
    for name in pipeline[: pipeline.index(place.stage)]:
        if "start" in place.config["stages"][name]:
            checkpoints = checkpoints_of(place.config, place.workdir, name)
            if not checkpoints.steps():
                yield f"{checkpoints.root}: the end of {name}, from which others begin, is gone"
