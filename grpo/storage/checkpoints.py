"""The checkpoints of a run: whole or not there, never guessed at, few.

    <root>/00000120/               a step (snapshot.py)
    <root>/00000130.tmp/           was not finished: never read, deleted by the next save
    <root>/00000120.old/           what 00000120 replaces: put back if that was cut short
    <root>/quarantine/00000119/    was found broken: never deleted

A run goes on from the newest step that is whole. If there are steps and none is whole, it does not
quietly begin anew. Only a save deletes: steps that are neither the newest, nor the best, nor final.
One process writes to a root at a time.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from grpo.storage.manifest import NAME, fault, sync
from grpo.storage.snapshot import (
    About,
    Restored,
    SnapshotError,
    read_about,
    read_snapshot,
    snapshot_fault,
    write_snapshot,
)
from grpo.storage.vouched import Mark
from grpo.training.train_step import TrainState

FRESH = "set --config.checkpoint.allow_fresh=True to start again"
STEP = "[0-9]{8}|[1-9][0-9]{8,}"  # as `path` writes it
MODES = {"max": 1.0, "min": -1.0}
NO_MARKS: Mapping[str, Mark] = types.MappingProxyType({})  # of a state without journals


class CheckpointsBrokenError(SnapshotError):
    """There are steps and none of them is whole."""


class CheckpointWriteError(SnapshotError):
    """A step could not be saved; those before it are as they were."""


class Checkpoints:
    """The steps below a root."""

    def __init__(
        self, root: str | pathlib.Path, *, keep_last: int, best_mode: str, allow_fresh: bool
    ):
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last}: at least the newest step is kept")
        if best_mode not in MODES:
            raise ValueError(f"best_mode={best_mode!r}: expected one of {', '.join(MODES)}")
        self.root = pathlib.Path(root)
        self.keep_last, self.best_mode, self.allow_fresh = keep_last, best_mode, allow_fresh
        self.rejected: list[str] = []  # a line for each step that `newest` put into quarantine
        self._verified: set[int] = set()  # a process hashes a step once

    def path(self, step: int) -> pathlib.Path:
        """The directory of a step."""
        return self.root / f"{step:08d}"

    def steps(self) -> list[int]:
        """The steps that were finished; whether they still are whole is not looked at."""
        return [int(path.name) for path in self.paths() if (path / NAME).is_file()]

    def best(self) -> int | None:
        """The finished step of the best metric, the later one of equals."""
        ranks = {}
        for step in self.steps():
            with contextlib.suppress(ValueError):
                metric = read_about(self.path(step)).metric
                if metric is not None:
                    ranks[step] = (MODES[self.best_mode] * metric, step)
        return max(ranks, key=lambda step: ranks[step], default=None)

    def beats_best(self, metric: float) -> bool:
        """Whether a metric is better than that of the best step; False if no step has one."""
        best = self.best()
        known = None if best is None else read_about(self.path(best)).metric
        sign = MODES[self.best_mode]
        return known is not None and sign * metric > sign * known

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        extra: dict[str, Any],
        pending: dict[str, np.ndarray] | None = None,
        metric: float | None = None,
        final: bool = False,
        marks: Mapping[str, Mark] = NO_MARKS,
    ) -> pathlib.Path:
        """Writes a step, then deletes those that need not be kept; its like is replaced."""
        path = self.path(step)
        tmp, old = path.with_suffix(".tmp"), path.with_suffix(".old")
        needed = sum(getattr(x, "nbytes", 0) for x in jax.tree.leaves((state, pending)))
        try:
            self._tidy()
            require_room(self.root, needed)
            write_snapshot(tmp, state, pending, About(step, metric, final, extra), marks)
            if reason := fault(tmp):  # before any other step is deleted for it
                raise OSError(errno.EIO, f"what was written is not what is there: {reason}")
            if path.exists():
                os.rename(path, old)
            os.rename(tmp, path)
            sync(self.root)
        except Exception as error:  # of orbax, TensorStore, NumPy, JSON and the file system
            with contextlib.suppress(OSError):
                self._tidy()
            raise CheckpointWriteError(
                f"{path}: not saved; its arrays need {needed} bytes, {_free(self.root)} "
                f"({type(error).__name__}: {str(error)[:300]})"
            ) from error
        self._verified.discard(step)
        with contextlib.suppress(OSError):  # this step is safe; the next save tries again
            self._prune(step)
            self._tidy()
        return path

    def newest(self) -> int | None:
        """The newest step that is whole, None if there are none; broken ones go to quarantine."""
        self._put_back()
        reasons: dict[pathlib.Path, str] = {}
        found = None
        for path in reversed(self.paths()):
            if not (reason := snapshot_fault(path)):
                found = int(path.name)
                self._verified.add(found)
                break
            reasons[path] = reason
        if reasons and found is None and not self.allow_fresh:
            listed = "; ".join(f"{path.name} ({reason})" for path, reason in reasons.items())
            raise CheckpointsBrokenError(f"{self.root}: no step is whole: {listed}; {FRESH}")
        for path, reason in reasons.items():
            self._quarantine(path)
            self.rejected.append(f"{path}: {reason}")
        return found

    def restore(self, step: int, like: TrainState) -> Restored:
        """A whole step, with the structure, dtypes and shardings of `like`."""
        path = self.path(step)
        if step not in self._verified and (reason := snapshot_fault(path)):
            raise SnapshotError(f"{path}: {reason}")
        self._verified.add(step)
        return read_snapshot(path, like)

    def paths(self) -> list[pathlib.Path]:
        """Everything that is called like a step, oldest first."""
        if not self.root.exists():
            return []
        names = (path.name for path in self.root.iterdir())
        steps = sorted(int(name) for name in names if re.fullmatch(STEP, name))
        return [self.path(step) for step in steps]

    def _prune(self, saved: int) -> None:
        """Takes the names of steps that need not be kept, so that no half of one is ever seen."""
        steps = self.steps()
        kept = {saved, self.best(), *steps[-self.keep_last :]}
        for step in steps:
            # One whose extra.json cannot be read may be final: it is left to `newest`.
            with contextlib.suppress(ValueError):
                if not read_about(self.path(step)).final and step not in kept:
                    os.rename(self.path(step), self.path(step).with_suffix(".deleted.tmp"))

    def _put_back(self) -> None:
        """Gives a step its name again if its replacement never came."""
        for old in self.root.glob("*.old"):
            if re.fullmatch(STEP, old.stem) and not old.with_suffix("").exists():
                os.rename(old, old.with_suffix(""))

    def _tidy(self) -> None:
        """Deletes what is no step: unfinished, replaced, pruned."""
        self._put_back()
        for path in self.root.glob("*"):
            if re.fullmatch(rf"({STEP})\.(old|tmp|deleted\.tmp)", path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _quarantine(self, path: pathlib.Path) -> None:
        """Moves a broken step aside, next to those of its name that are there."""
        folder = self.root / "quarantine"
        folder.mkdir(exist_ok=True)
        names = [path.name, *(f"{path.name}.{n}" for n in range(1, len(os.listdir(folder)) + 1))]
        os.rename(path, next(folder / name for name in names if not (folder / name).exists()))


def require_room(root: pathlib.Path, needed: int) -> None:
    """Refuses to begin what a disk has no room for."""
    root.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(root).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free(root: pathlib.Path) -> str:
    """How many bytes the disk has left, in words."""
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(root).free} are free"
    return "the disk does not answer"
