"""Rows that are lost, by a full disk or with the power, leave a trace in what vouches for them."""

import errno
import json
import os
import pathlib

import pytest

from grpo.storage.journal import Journal, JournalError
from grpo.storage.vouched import Mark, Witness, journal_fault, read_marks
from tests.small_run import (
    G,
    P,
    assert_same_run,
    final,
    launch,
    rows,
    small,
    small_evaluate,
    small_grpo,
    stop_at,
    watched,
)


def config():
    """Three iterations, each of them saved, and an evaluation."""
    run, grpo, check = small(), small_grpo(), small_evaluate()
    grpo.update(evaluate_every=0, checkpoint_every=1)
    check.policies = ("grpo",)
    run.stages.grpo, run.stages.check = grpo, check
    run.pipeline = ("grpo", "check")
    return run


@pytest.fixture(scope="module")
def straight(folder):
    """A run whose disk has room."""
    assert launch(config(), folder / "straight") == 0
    return folder / "straight"


@pytest.fixture
def full(monkeypatch):
    """A disk that takes no row of a journal while its name stands in the set that is given."""
    on, refused = set(), []

    def none_left(file) -> None:
        if pathlib.Path(file.name).name in on:
            refused.append(file.name)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("grpo.storage.journal.drop_torn_end", none_left)
    return on, refused


def summary(workdir) -> str:
    return (workdir / "summary.md").read_text("utf-8")


def test_rows_that_a_full_disk_cost_are_counted_and_told(folder, straight, full):
    """Those of the second iteration, whose checkpoint and all later ones know of it."""
    workdir, (on, refused) = folder / "full", full

    def fill(run, event) -> None:
        if event == "train 1":
            on.add("rollouts.jsonl")
        if event == "grpo update 2":
            on.clear()

    with watched(fill):
        assert launch(config(), workdir) == 0
    lost = P * G
    assert len(refused) == lost  # the fault was there
    assert len(rows(workdir, "rollouts")) == len(rows(straight, "rollouts")) - lost
    assert f"and what it earned, BUT {lost} of these rows could not be" in summary(workdir)
    assert read_marks(final(workdir, "grpo"))["rollouts"].lost == lost
    assert "BUT" not in summary(straight)
    assert read_marks(final(straight, "grpo"))["rollouts"] == Mark(
        3 * P * G, read_marks(final(straight, "grpo"))["rollouts"].sha256, 0
    )


def test_what_is_computed_again_is_not_lost(folder, straight, full):
    """Rows after the last checkpoint come again with the iteration."""
    workdir, (on, refused) = folder / "again", full

    def fill(run, event) -> None:
        if event == "train 1":
            on.add("rollouts.jsonl")
        if event == "grpo update 2":
            raise KeyboardInterrupt

    with watched(fill), pytest.raises(KeyboardInterrupt):
        launch(config(), workdir)
    on.clear()
    assert len(refused) == P * G and len(rows(workdir, "rollouts")) == P * G
    assert launch(config(), workdir) == 0
    assert_same_run(straight, workdir)
    assert "BUT" not in summary(workdir)


def test_rows_that_went_with_the_power(folder, straight, capsys):
    """They were there when the checkpoint was written; the next launch says that they are not."""
    workdir = folder / "power"
    with watched(stop_at("grpo update 2")):
        assert launch(config(), workdir) == 75
    file = workdir / "rollouts.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * P * G
    file.write_bytes(b"".join(lines[:-3]) + lines[-3][:10])  # torn in the third but last
    capsys.readouterr()
    assert launch(config(), workdir) == 0
    said = capsys.readouterr().err
    vouched = f"has {2 * P * G - 3} of the {2 * P * G} rows that the checkpoint vouches for"
    assert f"grpo at update 2: rollouts.jsonl: {vouched}" in said
    assert "BUT 3 of these rows" in summary(workdir)
    assert len(rows(workdir, "rollouts")) == 3 * P * G - 3
    # The run itself is none the worse.
    assert (workdir / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_rows_that_are_others(folder, capsys):
    workdir = folder / "others"
    with watched(stop_at("grpo update 1")):
        assert launch(config(), workdir) == 75
    file = workdir / "rollouts.jsonl"
    whole = file.read_bytes()
    changed = whole.replace(b'"tokens":', b'"takens":', 1)
    assert changed != whole and len(changed) == len(whole)
    file.write_bytes(changed)
    with watched(stop_at("grpo update 2")):
        assert launch(config(), workdir) == 75
    said = capsys.readouterr().err
    assert f"its first {P * G} rows are not those the checkpoint vouches for" in said


def test_a_launch_that_finds_all_rows_says_nothing(folder, capsys):
    workdir = folder / "fine"
    for event in ("grpo update 1", "grpo update 2"):
        with watched(stop_at(event)):
            assert launch(config(), workdir) == 75
    assert "vouches" not in capsys.readouterr().err


def test_journals_are_on_the_disk_before_the_checkpoint_that_vouches_for_them(folder, monkeypatch):
    seen, sync, rename = [], os.fsync, os.rename

    def seen_sync(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        seen.append(pathlib.Path(os.readlink(f"/proc/self/fd/{number}")).name)
        sync(descriptor)

    def seen_rename(source, target):
        seen.append(f"checkpoint {pathlib.Path(target).name}")
        rename(source, target)

    with monkeypatch.context() as patch, watched(stop_at("grpo update 1")):
        patch.setattr(os, "fsync", seen_sync)
        patch.setattr(os, "rename", seen_rename)
        assert launch(config(), folder / "synced") == 75
    before = seen[: seen.index("checkpoint 00000001")]
    assert {"metrics.jsonl", "timing.jsonl", "rollouts.jsonl", "manifest.json.tmp"} <= {*before}
    assert before.index("rollouts.jsonl") < before.index("manifest.json.tmp")
    marks = read_marks(final(folder / "synced", "grpo"))
    assert {name: mark.rows for name, mark in marks.items()} == {
        "metrics": 1, "timing": 1, "rollouts": P * G,
    }  # fmt: skip


def test_an_evaluation_that_lost_rows_is_made_again(folder, straight, full):
    workdir, (on, refused) = folder / "evaluated", full
    on.add("check.jsonl")
    with pytest.raises(JournalError, match=r"check\.jsonl: 4 rows could not be written; free the"):
        launch(config(), workdir)
    assert len(refused) == 4 and not (workdir / "evaluations" / "check.json").exists()
    on.clear()
    assert launch(config(), workdir) == 0
    assert_same_run(straight, workdir)


def test_a_witness_reads_no_row_twice_and_counts_whole_ones(tmp_path):
    journal = Journal(tmp_path / "a.jsonl")
    witness, fresh = Witness(journal), Witness(journal)
    assert witness.mark().rows == 0
    for n in range(3):
        journal.write({"n": n})
        assert witness.mark() == Witness(journal).mark() and witness.mark().rows == n + 1
    with open(journal.path, "ab") as file:
        file.write(b'{"torn"')
    assert witness.mark() == fresh.mark() and fresh.mark().rows == 3
    mark = witness.mark()
    assert journal_fault(journal.path, mark) == ""
    journal.keep(lambda row: row["n"] < 1)
    assert journal_fault(journal.path, mark).startswith("a.jsonl: has 1 of the 3 rows")
    assert witness.mark() == Witness(journal).mark()
    assert json.loads(json.dumps(mark._asdict())) == mark._asdict()
