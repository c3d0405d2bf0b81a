"""A scratch directory beside a run's, in which one of its stages goes on.

In it are links to what the run has left, and none to its journals: a stage writes there what it
wrote in the run. Nothing is written into the run's directory. Where the stage goes on from a
checkpoint, its other files are there as well, copied; where it begins, it makes them again.
"""

import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from grpo.replays.place import Nearest, Place, ReplayError
from grpo.reporting.progress import Progress
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop, checkpoints_of
from grpo.runs.setup import set_up

NEVER = 10**9
# What a run goes on writing, and what says how it ended.
OWN = ("lock", "DONE", "FAILED", "summary.md", "inputs.json", "checkpoints", "judges")


class Scratch(NamedTuple):
    """A run beside the run."""

    run: Run
    policies: Policies
    place: Place


def opened_beside(
    place: Place, found: Nearest, scratch: pathlib.Path, progress: Progress
) -> Scratch:
    """The run in a scratch directory, with the data that it had."""
    for line in lacking(place):
        raise ReplayError(line)
    prepare(place, found, scratch)
    run, policies = set_up(config_to_replay(place), scratch, progress, Stop())
    return Scratch(run, policies, place)


def prepare(place: Place, found: Nearest, scratch: pathlib.Path) -> None:
    """Links to what the run has left, and the checkpoint that the stage is to go on from."""
    own = [place.workdir / file for file in place.files]
    folders = {file.parent for file in own if file.parent.is_dir()}  # that the stage writes into
    for path in place.workdir.iterdir():
        if path in folders:
            link([below for below in path.iterdir() if below not in own], scratch / path.name)
        elif path.name not in OWN and path.suffix not in (".jsonl", ".npz", ".tmp"):
            link([path], scratch)
    for file in own:
        if found.path is not None and file.exists():
            shutil.copyfile(file, scratch / file.relative_to(place.workdir))
    there, folder = place.workdir / "checkpoints", scratch / "checkpoints"
    if there.is_dir():
        link([path for path in there.iterdir() if path.name != place.stage], folder)
    link([] if found.path is None else [found.path], folder / place.stage)


def link(paths: Iterable[pathlib.Path], folder: pathlib.Path) -> None:
    """Links to files and folders, in a folder that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path.name).symlink_to(path.absolute())


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
