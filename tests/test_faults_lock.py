"""A run whose lock is gone ends, and writes nothing more into what may be another run's."""

import pathlib

import pytest

import grpo.pipeline
from tests.small_run import (
    assert_same_run,
    launch,
    small,
    small_grpo,
    small_sft,
    watched,
)


def config():
    run = small()
    run.stages.sft, run.stages.grpo, run.pipeline = small_sft(), small_grpo(), ("sft", "grpo")
    run.stages.sft.update(evaluate_every=0, checkpoint_every=1)
    run.stages.grpo.update(evaluate_every=0, checkpoint_every=1)
    return run


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config(), folder / "straight") == 0
    return folder / "straight"


def held(workdir: pathlib.Path) -> dict[pathlib.Path, bytes]:
    """All that lies in a directory."""
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def once(event, work):
    """Calls `work` at an event, the first time."""
    left = [work]

    def see(run, seen) -> None:
        if seen == event and left:
            left.pop()(run.workdir)

    return see


@pytest.mark.parametrize("event", ["sft update 1", "train 1", "grpo update 2"])
def test_a_run_without_its_lock_ends_in_one_line(folder, straight, event, capsys):
    workdir, left = folder / f"gone {event}", []

    def take(workdir) -> None:
        (workdir / "lock").unlink()
        left.append(held(workdir))

    capsys.readouterr()
    with watched(once(event, take)) as events:
        assert launch(config(), workdir) == 1
    assert events[-1] == event  # nothing was computed after it
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "its lock was deleted or replaced" in lines[0]
    assert "Traceback" not in err
    assert len(left) == 1 and held(workdir) == left[0]  # no byte more, no FAILED
    assert launch(config(), workdir) == 0
    assert_same_run(straight, workdir)


def test_a_second_run_that_came_in_is_left_alone(folder, straight):
    """It begins and ends while the first one is at an update."""
    workdir, codes = folder / "two", []

    def second(workdir) -> None:
        (workdir / "lock").unlink()
        codes.append(launch(config(), workdir))

    with watched(once("grpo update 1", second)):
        assert launch(config(), workdir) == 1
    assert codes == [0] and (workdir / "DONE").exists() and not (workdir / "FAILED").exists()
    assert_same_run(straight, workdir)


def test_the_harness_can_fail(folder, straight, monkeypatch):
    """Without the look at the lock both finish, and the journals are garbled."""
    workdir, locked, codes = folder / "blind", grpo.pipeline.locked, []

    class Blind:
        def __init__(self, workdir):
            self.inner = locked(workdir)

        def __enter__(self):
            self.inner.__enter__()
            return lambda: None

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    def second(workdir) -> None:
        (workdir / "lock").unlink()
        codes.append(launch(config(), workdir))

    monkeypatch.setattr(grpo.pipeline, "locked", Blind)
    with watched(once("grpo update 1", second)):
        codes.append(launch(config(), workdir))
    assert codes == [0, 0]
    with pytest.raises(AssertionError):
        assert_same_run(straight, workdir)
