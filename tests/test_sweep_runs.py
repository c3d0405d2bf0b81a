"""Sweeps of real runs: shared stages bit by bit, the command from its file to its table, Slurm."""

import hashlib
import os
import pathlib
import subprocess

import pytest

from configs import base
from grpo.pipeline import run_config
from grpo.storage.journal import read_journal
from grpo.sweeps.sharing import cut
from grpo.sweeps.slurm import slurm_script
from grpo.sweeps.worker import begin
from grpo.tools.sweep import parser, script_of, sweep
from tests.small_run import (
    assert_same_run,
    rows,
    small,
    small_evaluate,
    small_grpo,
    small_sft,
    workshop,
)

ROOT = pathlib.Path(__file__).parent.parent
BASH = "/bin/bash"


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """Every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run alone, and one that begins from a run that began from another."""
    folder = tmp_path_factory.mktemp("shared")
    config = small()
    config.stages.update({"sft": small_sft(), "grpo": small_grpo(), "evaluate": small_evaluate()})
    config.stages.sft.evaluate_every = 3
    config.stages.grpo.checkpoint_every = 1
    config.pipeline = ("sft", "grpo", "evaluate")
    whole, before = config.to_dict(), {}
    with workshop():
        assert run_config(whole, folder / "alone") == 0
        assert run_config(cut(whole, 1), folder / "sft") == 0
        before["sft"] = hashes(folder / "sft")
        begin(folder / "sft+grpo", folder / "sft", cut(whole, 2))
        assert run_config(cut(whole, 2), folder / "sft+grpo") == 0
        before["sft+grpo"] = hashes(folder / "sft+grpo")
        begin(folder / "cell", folder / "sft+grpo", whole)
        assert run_config(whole, folder / "cell") == 0
    return folder, before


def test_a_run_from_shared_stages_is_the_run_alone(runs):
    folder, _ = runs
    assert_same_run(folder / "alone", folder / "cell")
    assert (folder / "cell" / "summary.md").exists() and (folder / "cell" / "DONE").exists()
    assert [row["stage"] for row in rows(folder / "cell", "metrics")].count("grpo") == 3 + 2


def test_a_shared_run_stays_as_it_was(runs):
    folder, before = runs
    for name, files in before.items():
        assert hashes(folder / name) == files


def test_only_checkpoints_are_the_same_files(runs):
    folder, _ = runs
    here, there = folder / "cell", folder / "sft"
    for path in (path for path in there.rglob("*") if path.is_file()):
        other = here / path.relative_to(there)
        is_checkpoint = path.relative_to(there).parts[0] == "checkpoints"
        if other.exists():
            assert os.path.samefile(path, other) == is_checkpoint, path
    assert any((there / "checkpoints").rglob("manifest.json"))


def test_a_folder_called_checkpoints_makes_no_checkpoint(runs, tmp_path):
    folder, _ = runs
    inside = tmp_path / "checkpoints"
    begin(inside / "first", folder / "sft", {"stages": {}})
    begin(inside / "second", inside / "first", {"stages": {}})
    first, second = (inside / name / "metrics.jsonl" for name in ("first", "second"))
    assert not os.path.samefile(first, second)


CONFIGS = """
from configs import base
def get_config(variant):
    config = base.base()
    config.model.update(size="gemma3_micro", vocab=400)
    config.data.update(train_examples=24, test_examples=4, levels=(1,))
    config.evaluation.update(examples=4, batch=2, max_new_tokens=4)
    for name in ("first", "second"):
        config.stages[name] = base.evaluate()
        config.stages[name].update(policies=("base",), batch=2, max_new_tokens=4)
    config.pipeline = ("first", "second")
    config.stages.second.split = "train" if variant.endswith("train") else "test"
    config.stages.second.examples = 4
    if variant.endswith("broken"):
        config.data.max_prompt, config.data.buckets = 4, (4,)
    return config
"""


BROKEN = "arithmetic (train, prompts of 4): 0.0% of the examples are kept, 90.0% are needed"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of three cells, one of which cannot be, in processes of their own."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "configs.py").write_text(CONFIGS)
    (folder / "s.py").write_text(
        "from configs import base\ndef get_config():\n    return base.sweep(\n"
        f"        file={str(folder / 'configs.py')!r}, seeds=(7,), "
        "ablations=('', 'train', 'broken'))\n"
    )
    flags = parser().parse_args(
        [str(folder / "s.py"), f"--workdir={folder / 'runs'}", "--workers=2"]
    )
    return folder, flags, sweep(flags)


def test_a_sweep_from_its_file_to_its_rows(swept):
    folder, _, code = swept
    found = {row["ablation"]: row for row in read_journal(folder / "runs" / "cells.jsonl")}
    assert code == 1 and list(found) == ["", "train", "broken"]
    assert [row["state"] for row in found.values()] == ["done", "done", "failed"]
    assert found["broken"]["reason"] == BROKEN
    (shared,) = (folder / "runs" / "shared").iterdir()
    for name, row in found.items():
        assert sorted(row) == sorted([
            "cell", "ablation", "seed", "directory", "state", "reason", "seconds", "shared",
            "changed", "stage", "metrics",
        ])  # fmt: skip
        assert row["seed"] == 7 and row["cell"] == f"{name or 'base'}-seed7"
        assert row["stage"] == "second"
        assert row["shared"] == (None if name == "broken" else f"shared/{shared.name}")
    assert found["train"]["changed"] == {"stages.second.split": "train"}
    for name in ("", "train"):
        run = folder / "runs" / found[name]["directory"]
        assert found[name]["reason"] is None and found[name]["seconds"] > 0
        assert 0 <= found[name]["metrics"]["base"]["accuracy/strict"] <= 1
        assert (run / "DONE").exists()
        assert [row["stage"] for row in rows(run, "metrics")] == ["first", "second"]
        assert len(read_journal(run / "environment.jsonl")) == 2  # of the shared one, and its own


def test_the_same_command_does_nothing(swept, capsys):
    folder, flags, _ = swept
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    assert sweep(flags) == 1
    said = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")} == before
    assert said.count("done") == 2 and said.count(BROKEN) == 2  # of a cell, and of the comparison


def test_another_config_is_another_directory(swept, capsys):
    folder, flags, _ = swept
    directories = sorted(path.name for path in (folder / "runs" / "cells").iterdir())
    text = (folder / "configs.py").read_text()
    (folder / "configs.py").write_text(text.replace("train_examples=24", "train_examples=25"))
    flags.shard = (2, 3)  # the broken one
    assert sweep(flags) == 1
    said = capsys.readouterr().out
    assert "is no longer part of this sweep" in said
    for name in directories:
        assert f"cells/{name} is no longer part" in said
    (folder / "configs.py").write_text(text)


def test_a_dry_run_writes_nothing(swept, tmp_path, capsys):
    _, flags, _ = swept
    flags = parser().parse_args([flags.file, f"--workdir={tmp_path / 'none'}", "--dry_run"])
    assert sweep(flags) == 0 and not (tmp_path / "none").exists()
    assert "3 cells" in capsys.readouterr().out


def test_a_slurm_script_runs_its_shard(swept):
    """As sbatch would start its tasks; all that it finds is done, or failed before."""
    _, flags, _ = swept
    script = script_of(flags, tasks=3)
    subprocess.run([BASH, "-n"], input=script, text=True, check=True)
    assert "#SBATCH --array=0-2\n" in script
    done = subprocess.run(
        [BASH], input=script, text=True, capture_output=True, cwd=ROOT,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "0", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and "done" in done.stdout, done.stderr
    without = {name: x for name, x in os.environ.items() if name != "SLURM_ARRAY_TASK_ID"}
    failed = subprocess.run([BASH], input=script, text=True, capture_output=True, env=without)
    assert failed.returncode != 0 and "SLURM_ARRAY_TASK_ID" in failed.stderr


def test_submitit_runs_the_same_sweep(swept, tmp_path, monkeypatch, capsys):
    """In two jobs, of which one waits for a run that both begin from."""
    # Without this its import configures logging, which has absl close pytest's own stderr.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    why = "submitit is not installed: pip install -e '.[submitit]'"
    pytest.importorskip("submitit", reason=why)
    folder, flags, _ = swept
    assert sweep(flags) == 1  # the ordinary command, which finds all done
    told = capsys.readouterr().out.partition("\n# ")[2].partition(str(folder))[0]
    monkeypatch.chdir(ROOT)
    words = [flags.file, f"--workdir={tmp_path / 'runs'}", "--submit=local", "--tasks=2"]
    assert sweep(parser().parse_args(words)) == 1
    there, here = (read_journal(at / "runs" / "cells.jsonl") for at in (folder, tmp_path))
    assert [{**row, "seconds": 0} for row in here] == [{**row, "seconds": 0} for row in there]
    jobs = tmp_path / "runs" / "submitit"
    assert len(list(jobs.glob("*_result.pkl"))) == 2  # both have run to their ends
    said = capsys.readouterr().out
    assert said.startswith("submitted as ") and f"{jobs}/*_log.err" in said
    assert told and told in said


def test_names_that_a_shell_would_read():
    script = slurm_script(["-m", "x", "a b;c"], name="n", root="/a b", tasks=2)
    assert "cd '/a b'\n" in script and " -m x 'a b;c' --shard=" in script


def test_the_defaults_of_a_sweep():
    assert base.sweep().to_dict() == {
        "file": "configs/ablations.py", "base": "tiny", "ablations": ("",),
        "seeds": (0, 1, 2, 3, 4), "baseline": "",
    }  # fmt: skip
