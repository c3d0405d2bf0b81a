"""What is wrong with a run's directory is said in one line by the command, whatever it is."""

import errno
import os
import pathlib
import shutil

import pytest

import grpo.pipeline
from grpo.checks.arguments import run_name
from grpo.pipeline import print_errors
from tests.commands import answers
from tests.small_run import launch, small, small_sft, workshop

FILE = """
from tests.small_run import small, small_evaluate, small_sft


def get_config(variant=""):
    config = small()
    config.stages.sft, config.stages.check = small_sft(), small_evaluate()
    config.stages.sft.update(steps=2, evaluate_every=0, checkpoint_every=1)
    config.stages.check.policies = ("sft", "base")
    config.pipeline = ("sft", "check")
    return config
"""
CANARY = "canary-0123"


def unfinished(run: pathlib.Path) -> None:
    for name in ("DONE", "summary.md"):
        (run / name).unlink()


def damaged(name: str, text: str = "{\n"):
    """Writes nonsense into a file of a run that is not finished."""

    def damage(run: pathlib.Path) -> None:
        unfinished(run)
        (run / name).write_text(text)

    return damage


def all_broken(run: pathlib.Path) -> None:
    unfinished(run)
    for step in (run / "checkpoints" / "sft").iterdir():
        (step / "extra.json").write_text("{}")


# What is done to a finished run; the exit code of the next launch, and what its only line says.
DAMAGES = {
    "data.json": (damaged("data.json"), 2, "data.json cannot be read; delete it"),
    "inputs.json": (damaged("inputs.json"), 2, "inputs.json: cannot be read; delete it"),
    "config.json": (damaged("config.json"), 2, "config.json cannot be read; name another one"),
    "tokenizer": (damaged("tokenizer.model"), 2, "not a sentencepiece model"),
    "evaluation": (damaged("evaluations/check.json"), 1, "check.json: cannot be read ("),
    "answers": (damaged("evaluations/check.jsonl"), 1, "check.jsonl:line 1: not JSON"),
    "metrics": (damaged("metrics.jsonl"), 1, "metrics.jsonl:line 1: not JSON"),
    "timing": (damaged("timing.jsonl"), 1, "timing.jsonl:line 1: not JSON"),
    "checkpoints": (all_broken, 1, "no step is whole: 00000002 (extra.json: has 2 bytes, manifest"),
    "summary": (lambda run: (run / "summary.md").unlink(), 0, None),
}


@pytest.fixture(scope="module")
def damaged_runs(tmp_path_factory):
    """What each launch said of a damaged copy of a run, and the copies."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "config.py").write_text(FILE)

    def command(run: str, *more: str) -> list[str]:
        return ["launch.py", f"--config={folder}/config.py", f"--workdir={folder / run}", *more]

    ((code, said),) = answers([command("whole")])
    assert code == 0, said
    for name, (damage, *_) in DAMAGES.items():
        shutil.copytree(folder / "whole", folder / name)
        damage(folder / name)
    url = f"--config.model.path=https://ann:{CANARY}@host/x"
    commands = [*(command(name) for name in DAMAGES), command("secret", url)]
    return folder, dict(zip([*DAMAGES, "secret"], answers(commands), strict=True))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory(damaged_runs, name):
    (folder, got), (_, code, wanted) = damaged_runs, DAMAGES[name]
    said = got[name][1]
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert got[name][0] == code, said
    assert "Traceback" not in said
    assert len(lines) == (code != 0) and (wanted is None or wanted in lines[0])
    assert (folder / name / "FAILED").exists() == (code == 1)
    assert (folder / name / "DONE").exists() == (code == 0)
    if code == 1:
        assert (folder / name / "FAILED").read_text().count("Traceback") == 1
    if name == "checkpoints":  # every step is named, and none is gone
        assert "00000001 (" in lines[0]
        there, here = (sorted(p.name for p in (folder / run / "checkpoints/sft").iterdir())
                       for run in ("whole", name))  # fmt: skip
        assert there == here
    if name == "summary":
        assert (folder / name / "summary.md").read_text().startswith("# summary")


def test_a_password_in_a_path_is_not_shown(damaged_runs):
    folder, got = damaged_runs
    code, said = got["secret"]
    assert code == 2 and "https://...@host/x" in said and said.count("\n") == 1
    assert CANARY not in said
    for path in (folder / "secret").rglob("*"):
        assert CANARY.encode() not in path.read_bytes(), path
    words = ["launch.py", "--config=configs/tiny.py", f"--config.model.path=https://a:{CANARY}@h/x"]
    assert CANARY not in run_name(words) and run_name(words).startswith("tiny,model.path=https_")


def test_variables_named_like_secrets_are_not_shown(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("SOME_FOLDER", "/a/long/folder")
    print_errors([f"no {CANARY} in /a/long/folder"])
    assert capsys.readouterr().err == "error: no $HF_TOKEN in /a/long/folder\n"


@pytest.fixture(scope="module")
def config():
    made = small()
    made.stages.sft, made.pipeline = small_sft(), ("sft",)
    made.stages.sft.update(steps=1, evaluate_every=0)
    return made


def full(*words, **named):
    """A disk without room."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["config.json", "data.json", "inputs.json"])
def test_a_disk_that_is_full_from_the_start(tmp_path, config, name, monkeypatch, capsys):
    replace, refused = os.replace, []

    def full_for(draft, file):
        if pathlib.Path(file).name == name:
            refused.append(file)
            full()
        replace(draft, file)

    monkeypatch.setattr(os, "replace", full_for)
    with workshop():
        assert launch(config, tmp_path / "run") == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(refused) == 1 and len(lines) == 1
    assert lines[0].endswith("cannot be written or read (no space left on device)")


@pytest.mark.parametrize("what", ["summary", "write_json"])
def test_a_run_that_fails_at_its_very_end_says_so(tmp_path, config, what, monkeypatch):
    """Neither DONE nor FAILED would be taken for one that was stopped."""
    write_json = grpo.pipeline.write_json

    def full_at_done(file, data):
        return full() if file.name == "DONE" else write_json(file, data)

    monkeypatch.setattr(grpo.pipeline, what, full if what == "summary" else full_at_done)
    with workshop(), pytest.raises(OSError, match="No space left"):
        launch(config, tmp_path / "run")
    assert (tmp_path / "run" / "FAILED").read_text().startswith("OSError: [Errno 28]")
    assert not (tmp_path / "run" / "DONE").exists()
