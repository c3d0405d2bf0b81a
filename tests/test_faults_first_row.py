"""A run that dies between the creation of a file and what belongs into it can be gone on with."""

import os
import pathlib

import pytest

from grpo.reporting.html.run_files import read_run
from tests.small_run import (
    assert_same_run,
    launch,
    small,
    small_evaluate,
    small_grpo,
    small_sft,
)

JOURNALS = ("environment", "metrics", "timing", "rollouts", "evaluations/check")
WHOLE = ("config.json", "data.json", "tokenizer.model", "evaluations/check.json", "DONE")


class Killed(BaseException):
    """As if the power went."""


def config():
    """One update of each kind, and an evaluation."""
    run, sft, grpo, check = small(), small_sft(), small_grpo(), small_evaluate()
    sft.update(steps=1, evaluate_every=0)
    grpo.update(iterations=1, evaluate_every=0)
    check.policies = ("grpo",)
    run.stages.sft, run.stages.grpo, run.stages.check = sft, grpo, check
    run.pipeline = ("sft", "grpo", "check")
    return run


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config(), folder / "straight") == 0
    return folder / "straight"


def killed(workdir: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """A launch that must die."""
    with pytest.raises(Killed):
        launch(config(), workdir)
    patch.undo()
    (workdir / "FAILED").unlink(missing_ok=True)  # a process that is killed writes none


@pytest.mark.parametrize("name", JOURNALS)
def test_a_journal_that_was_created_and_has_no_row(folder, straight, name, monkeypatch):
    workdir = folder / name.replace("/", " ")
    file = workdir / f"{name}.jsonl"

    def die(opened) -> None:
        if pathlib.Path(opened.name) == file:
            raise Killed(name)

    monkeypatch.setattr("grpo.storage.journal.drop_torn_end", die)
    killed(workdir, monkeypatch)
    assert file.read_bytes() == b""  # it was created, and nothing came
    assert read_run(workdir).unread == []
    assert launch(config(), workdir) == 0
    assert_same_run(straight, workdir)


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_whose_draft_never_took_its_name(folder, straight, name, monkeypatch):
    workdir, replace = folder / f"no {name.replace('/', ' ')}", os.replace

    def die(draft, file) -> None:
        if pathlib.Path(file) == workdir / name:
            raise Killed(name)
        replace(draft, file)

    monkeypatch.setattr(os, "replace", die)
    killed(workdir, monkeypatch)
    assert not (workdir / name).exists()
    assert [*(workdir / name).parent.glob(f"{pathlib.Path(name).name}*tmp")]  # the draft is there
    assert launch(config(), workdir) == 0
    assert_same_run(straight, workdir)
    left = {path.relative_to(workdir) for path in workdir.rglob("*.tmp")}
    assert left <= {path.relative_to(straight) for path in straight.rglob("*.tmp")}


def test_the_comparison_can_fail(folder, straight):
    other = config()
    other.seed = 1
    assert launch(other, folder / "other") == 0
    with pytest.raises(AssertionError):
        assert_same_run(straight, folder / "other")
