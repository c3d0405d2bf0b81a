"""The tool that verifies a run: every damage is named, nothing is touched, and where it goes on."""

import pathlib
import re
import shutil

import pytest

from grpo.tools.verify import main
from tests.small_run import (
    launch,
    small,
    small_evaluate,
    small_grpo,
    small_sft,
    stop_at,
    watched,
    workshop,
)


def config():
    run, sft, grpo, check = small(), small_sft(), small_grpo(), small_evaluate()
    sft.update(evaluate_every=0, checkpoint_every=1)
    grpo.update(evaluate_every=0, checkpoint_every=1)
    check.policies = ("grpo",)
    run.stages.sft, run.stages.grpo, run.stages.check = sft, grpo, check
    run.pipeline = ("sft", "grpo", "check")
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one that was stopped in its second stage."""
    folder = tmp_path_factory.mktemp("runs")
    with workshop():
        assert launch(config(), folder / "finished") == 0
        with watched(stop_at("grpo update 2")):
            assert launch(config(), folder / "stopped") == 75
    return folder


def said_of(workdir: pathlib.Path, capsys) -> tuple[int, list[str], list[str]]:
    """The exit code, the lines, and those that are bad; the directory stays as it is."""
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    capsys.readouterr()
    code = main(["verify", str(workdir)])
    lines = capsys.readouterr().out.splitlines()
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    assert all(re.match(r"(ok |BAD)  \S", line) for line in lines)
    return code, lines, [line[5:] for line in lines if line.startswith("BAD")]


def test_runs_that_are_whole(runs, capsys):
    code, lines, bad = said_of(runs / "finished", capsys)
    assert (code, bad) == (0, [])
    assert lines[0] == "ok   the run: finished"
    assert "ok   checkpoints/sft/00000003: whole, the stage's end" in lines
    assert "ok   rollouts.jsonl: 24 rows" in lines
    assert "ok   grpo 00000003 on rollouts.jsonl: 24 rows are there" in lines
    assert lines[-1] == "ok   it goes on from: sft at update 3, grpo at update 3"
    code, lines, bad = said_of(runs / "stopped", capsys)
    assert (code, bad, lines[0]) == (0, [], "ok   the run: stopped")
    assert lines[-1] == "ok   it goes on from: sft at update 3, grpo at update 2"


def flipped(file: pathlib.Path) -> None:
    """One bit of the middle byte."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def largest(folder: pathlib.Path) -> pathlib.Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def cut(file: pathlib.Path, rows: int) -> None:
    """Takes so many rows off the end."""
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-rows]))


STEP = "checkpoints/grpo/00000002"
DAMAGES = {
    "a bit of the newest step": (
        lambda run: flipped(largest(run / STEP / "arrays")), [f"{STEP}: arrays/"], "update 1",
    ),
    "a step without its list": (
        lambda run: (run / STEP / "manifest.json").unlink(),
        [f"{STEP}: manifest.json: cannot be read"],
        "update 1",
    ),
    "rows that are gone": (
        lambda run: cut(run / "rollouts.jsonl", 3),
        ["grpo 00000002 on rollouts.jsonl: rollouts.jsonl: has 13 of the 16 rows"],
        "update 2",
    ),
    "a bad row": (
        lambda run: (run / "timing.jsonl").write_text("{\n"),
        ["timing.jsonl: line 1: not JSON", "sft 00000003 on timing", "grpo 00000002 on timing"],
        "update 2",
    ),
    "inputs.json": (
        lambda run: (run / "inputs.json").write_text("{"), ["inputs.json: "], "update 2",
    ),
    "a failure": (
        lambda run: (run / "FAILED").write_text("KeyError: x\n\n"),
        ["the run: failed: KeyError: x"],
        "update 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named(runs, tmp_path, name, capsys):
    damage, wanted, where = DAMAGES[name]
    shutil.copytree(runs / "stopped", tmp_path / "run")
    damage(tmp_path / "run")
    code, lines, bad = said_of(tmp_path / "run", capsys)
    assert code == 1 and len(bad) == len(wanted), bad
    for line, beginning in zip(bad, wanted, strict=True):
        assert line.startswith(beginning)
    assert lines[-1].endswith(f"grpo at {where}")


def test_it_says_where_a_run_does_go_on_from(runs, tmp_path, capsys):
    """The launch agrees with the tool."""
    shutil.copytree(runs / "stopped", tmp_path / "run")
    flipped(largest(tmp_path / "run" / STEP / "arrays"))
    _, lines, _ = said_of(tmp_path / "run", capsys)
    with workshop():
        assert launch(config(), tmp_path / "run") == 0
    assert lines[-1].endswith("grpo at update 1")
    assert "grpo goes on from update 1" in capsys.readouterr().err
    code, lines, _ = said_of(tmp_path / "run", capsys)
    assert code == 0
    assert "ok   checkpoints/grpo/quarantine/00000002: was found broken, and is not read" in lines


def test_a_torn_row_is_no_fault(runs, tmp_path, capsys):
    shutil.copytree(runs / "stopped", tmp_path / "run")
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        file.write(b'{"torn')
    code, lines, _ = said_of(tmp_path / "run", capsys)
    assert code == 0
    assert "ok   metrics.jsonl: 5 rows, and a torn one that the next launch drops" in lines


@pytest.mark.parametrize("words", [[], ["--all"], ["a", "b"]])
def test_how_it_is_asked(words, capsys):
    assert main(["verify", *words]) == 2
    assert capsys.readouterr().err.startswith("error: expected python -m grpo.tools.verify RUN")


def test_no_run(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: has no config.json, so it is not the directory of a run\n"
    )


def test_every_promise_names_a_test_that_exists():
    root = pathlib.Path(__file__).parent.parent
    page = (root / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"\| `(test_\w+\.py)::(\w+)` \| passed \|\n", page)
    promises = [line for line in page.splitlines() if line.startswith("| ") and ".py::" in line]
    assert len(named) == len(promises) > 40
    for file, name in named:
        assert f"def {name}(" in (root / "tests" / file).read_text("utf-8"), f"{file}::{name}"
