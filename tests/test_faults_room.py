"""Disks without room: said before a run and before a save; what is whole stays."""

import pathlib
import shutil
from typing import NamedTuple

import pytest

from grpo.runs.room import checkpoint_bytes, gigabytes, kept_of
from grpo.storage.checkpoints import Checkpoints, CheckpointWriteError
from grpo.storage.snapshot import snapshot_fault
from tests.small_run import (
    arrays,
    final,
    launch,
    newest,
    small,
    small_grpo,
    small_sft,
    watched,
    workshop,
)


class Usage(NamedTuple):
    """What shutil says of a disk."""

    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch):
    """How many bytes are free; None: what really is."""
    free, usage = [None], shutil.disk_usage

    def told(path):
        return usage(path) if free[0] is None else Usage(10**15, 0, free[0])

    monkeypatch.setattr(shutil, "disk_usage", told)
    return free


def config(keep_last: int = 2):
    run = small()
    run.checkpoint.keep_last = keep_last
    run.stages.sft, run.stages.grpo, run.pipeline = small_sft(), small_grpo(), ("sft", "grpo")
    run.stages.sft.update(evaluate_every=0, checkpoint_every=1)
    run.stages.grpo.update(evaluate_every=0, checkpoint_every=1)
    run.stages.grpo.lora.update(rank=2, alpha=4.0, targets="q|v")
    return run


def array_bytes(step: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in (step / "arrays").rglob("*") if path.is_file())


def test_a_run_that_would_not_fit_is_refused_before_it_computes(folder, disk, capsys):
    workdir, disk[0] = folder / "full", 10_000
    with watched(lambda run, event: None) as events:
        assert launch(config(), workdir) == 2
    sizes = checkpoint_bytes(config().to_dict())
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    needed = 2 * sum(sizes.values()) + max(sizes.values())
    each = ", ".join(f"{name} 2 x {gigabytes(size)}" for name, size in sizes.items())
    assert f"checkpoints need {gigabytes(needed)} ({each}, and one while" in line
    assert "1e-05 GB are free or theirs: free some, lower checkpoint.keep_last" in line
    assert events == [] and not (workdir / "FAILED").exists()
    disk[0] = needed  # as much as it takes
    assert launch(config(), workdir) == 0
    disk[0] = needed - 1
    assert launch(config(), folder / "one byte") == 2
    disk[0] = needed - sum(array_bytes(final(workdir, name)) for name in ("sft", "grpo"))
    (workdir / "DONE").unlink()
    assert launch(config(), workdir) == 0  # what is there is counted


def test_no_more_are_kept_than_are_made(folder):
    few = config(keep_last=10**6).to_dict()
    few["stages"]["sft"] |= {"steps": 7, "checkpoint_every": 3, "evaluate_every": 0}
    assert kept_of(few, "sft") == 3  # after 3, 6 and 7
    few["stages"]["sft"]["evaluate_every"] = 1
    assert kept_of(few, "sft") == 4
    few["checkpoint"]["keep_last"] = 2
    assert kept_of(few, "sft") == 3


def test_what_a_checkpoint_needs(folder):
    """To the byte: what a checkpoint's arrays have, of all parameters and of an adapter."""
    assert launch(config(), folder / "sizes") == 0
    for name, size in checkpoint_bytes(config().to_dict()).items():
        stored = arrays(final(folder / "sizes", name)).values()
        assert size == sum(len(array.partition(b")")[2]) for array in stored), name


def test_a_save_without_room_is_not_begun(folder, disk):
    workdir = folder / "later"

    def fill(run, event) -> None:
        if event == "sft update 2":
            disk[0] = 1000

    with watched(fill), pytest.raises(CheckpointWriteError) as error:
        launch(config(), workdir)
    assert "00000002: not saved; its arrays need" in str(error.value)
    assert "1000 are free" in str(error.value) and "\n" not in str(error.value)
    root = workdir / "checkpoints" / "sft"
    assert [path.name for path in root.iterdir()] == ["00000001"]
    assert snapshot_fault(root / "00000001") == ""
    disk[0] = None
    assert launch(config(), workdir) == 0


def test_a_step_that_is_not_what_was_written_costs_no_other(folder, monkeypatch):
    """With keep_last=1 the one before is all that there is."""
    workdir, write, spoilt = folder / "spoilt", Checkpoints.save.__globals__["write_snapshot"], []

    def write_badly(directory, *words):
        write(directory, *words)
        if directory.name.startswith("00000002"):
            file = max((directory / "arrays").rglob("*"), key=lambda path: path.stat().st_size)
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
            spoilt.append(file)

    monkeypatch.setattr("grpo.storage.checkpoints.write_snapshot", write_badly)
    with pytest.raises(CheckpointWriteError, match="what was written is not what is there"):
        launch(config(keep_last=1), workdir)
    assert len(spoilt) == 1
    root = workdir / "checkpoints" / "sft"
    assert [path.name for path in root.iterdir()] == ["00000001"]
    assert snapshot_fault(root / "00000001") == ""
    monkeypatch.undo()
    with workshop():
        assert launch(config(keep_last=1), workdir) == 0
    assert newest(workdir, "sft")[0] == 3
