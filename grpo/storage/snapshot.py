"""One checkpoint: a training state and what belongs to it, in a directory.

manifest.json        file -> size and sha256, written last (manifest.py)
arrays/trainable/    what a following stage or an evaluation wants
arrays/optimizer/    the rest of the TrainState
extra.json           step, metric, final, and as `extra` any JSON: data cursor, seed, ...
pending.npz          perhaps: host arrays, such as the batch that is being learnt from
journals.json        perhaps: which rows there were (vouched.py)
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grpo.storage.arrays import mismatches, read_arrays, write_arrays
from grpo.storage.manifest import fault, read_manifest, write_json, write_manifest
from grpo.storage.vouched import FILE as JOURNALS
from grpo.storage.vouched import Mark, marks_as_json
from grpo.training.train_step import TrainState

Tree = Any
SHOWN = 5  # leaves that an error names


class SnapshotError(ValueError):
    """A checkpoint of a run that cannot be read or written; one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # names of files may hold line breaks


class CheckpointMismatchError(SnapshotError):
    """A whole checkpoint of another model, adapter or optimizer."""


class About(NamedTuple):
    """What extra.json says."""

    step: int
    metric: float | None
    final: bool
    extra: dict[str, Any]


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: TrainState
    extra: dict[str, Any]
    pending: dict[str, np.ndarray] | None


def write_snapshot(
    directory: pathlib.Path,
    state: TrainState,
    pending: dict[str, np.ndarray] | None,
    about: About,
    marks: Mapping[str, Mark],
) -> None:
    """Writes a checkpoint into a directory that does not exist; returns when the disk has it."""
    if json.loads(json.dumps(about.extra)) != about.extra:
        raise ValueError("extra has keys or values that JSON would change")
    if about.metric is not None:
        # A metric that is not finite is none: NaN would be neither better nor worse.
        metric = float(about.metric)
        about = about._replace(metric=metric if math.isfinite(metric) else None)
    (directory / "arrays").mkdir(parents=True)
    write_arrays(directory / "arrays/trainable", state.trainable)
    write_arrays(directory / "arrays/optimizer", state._replace(trainable=None))
    if pending is not None:
        _write_pending(directory / "pending.npz", pending)
    if marks:
        write_json(directory / JOURNALS, marks_as_json(marks))
    write_json(directory / "extra.json", about._asdict())
    write_manifest(directory)


def read_about(directory: pathlib.Path) -> About:
    """What extra.json says; a ValueError of one line where it cannot be read."""
    try:
        return About(**json.loads((directory / "extra.json").read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"extra.json: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, RecursionError):
        raise ValueError("extra.json: is not that of a checkpoint") from None


def snapshot_fault(directory: pathlib.Path) -> str:
    """What is wrong with the checkpoint `<root>/<step>`; "" if nothing is."""
    if reason := fault(directory):
        return reason
    try:
        about = read_about(directory)
    except ValueError as error:
        return str(error)
    # Somebody's copy under another name would be taken for a newer one.
    return "" if about.step == int(directory.name) else f"extra.json: is of step {about.step}"


def read_snapshot(directory: pathlib.Path, like: TrainState) -> Restored:
    """A checkpoint without a fault, with the structure, dtypes and shardings of `like`."""
    rest = like._replace(trainable=None)
    parts = {directory / "arrays/trainable": like.trainable, directory / "arrays/optimizer": rest}
    _refuse_mismatch(directory, parts)
    trainable, rest = (read_arrays(*part) for part in parts.items())
    pending = None
    if "pending.npz" in read_manifest(directory):
        with np.load(directory / "pending.npz", allow_pickle=False) as arrays:
            pending = {name: arrays[name] for name in arrays.files}
    return Restored(rest._replace(trainable=trainable), read_about(directory).extra, pending)


def restore_part(directory: str | pathlib.Path, part: str, like: Tree) -> Tree:
    """One part of a checkpoint, such as `trainable`; only that part's files are looked at."""
    directory = pathlib.Path(directory)
    if reason := fault(directory, f"arrays/{part}/"):
        raise SnapshotError(f"{directory}: {reason}")
    _refuse_mismatch(directory, {directory / "arrays" / part: like})
    return read_arrays(directory / "arrays" / part, like)


def _refuse_mismatch(directory: pathlib.Path, parts: dict[pathlib.Path, Tree]) -> None:
    """Raises if a part of a checkpoint does not hold what its tree is like."""
    lines = [line for part, like in parts.items() for line in mismatches(part, like)]
    if lines:
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise CheckpointMismatchError(
            f"{directory}: is of another model, adapter or optimizer: "
            f"{'; '.join(lines[:SHOWN])}{more}"
        )


def _write_pending(file: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Host arrays in one file."""
    for name, values in arrays.items():
        if values.dtype.kind in "OV":  # NumPy would pickle the one and forget bfloat16's name
            raise ValueError(f"pending {name} has dtype {values.dtype}, which .npz cannot hold")
    np.savez(file, **arrays)
