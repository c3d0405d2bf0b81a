"""launch.py --hack: a table for every stage with rewards."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from configs import base
from grpo.evaluation.hack_cases import CASES
from grpo.rewards.batch import each
from grpo.rewards.table import REWARDS
from grpo.tools.hack import examples_of, hack
from tests.refusals import LINES, TEST, changed

ROOT = pathlib.Path(__file__).parent.parent
REWARDS_OF = "stages.grpo.rewards"


def test_the_tiny_experiment():
    """Eight examples; 0 hacked, a line for every case in aligned columns."""
    first, table, last = hack(changed({}))
    assert first == "grpo: 4 built-in examples, 4 of its dataset"
    lines = table.split("\n")
    assert len(lines) == 3 + len(CASES) and len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "the worked solution", "right", "1.00", "",
    ]  # fmt: skip
    assert last.startswith(f"grpo: 0 of {len(CASES)} are hacked")


def test_what_is_hacked_is_counted():
    options = {f"{REWARDS_OF}.correct_answer.options.strict": False}
    _, table, last = hack(changed(options))
    assert "| hacked 8 of 8 |" in next(line for line in table.split("\n") if "a sentence" in line)
    assert last.startswith(f"grpo: 16 of {len(CASES)} are hacked") and "0 right ones" in last


def test_every_stage_with_rewards(monkeypatch):
    """In the order of the pipeline; a reward that fails says why."""

    def broken(example, completion):
        raise KeyError("rubric\x1b[2J")

    monkeypatch.setitem(REWARDS, "hybrid", each(broken))
    config = changed({}, "controls")
    config["stages"]["shuffled"]["rewards"] = {"hybrid": base.reward(1.0, 0.0, 2.6).to_dict()}
    lines = hack(config)
    assert [line.split(":")[0] for line in lines if "\n" not in line] == [
        "grpo", "grpo", "shuffled", "shuffled", "shuffled",
    ]  # fmt: skip
    assert "completions have no total: KeyError: " in lines[-1]
    assert "| none |" in " ".join(lines[-3].split()) and "\x1b" not in "".join(lines)
    config["pipeline"] = ("sft",)
    assert hack(config) == ["no stage of the pipeline has rewards"]


def test_examples_of_a_stages_dataset(tmp_path):
    """Of the dataset that it names, if every file of it is here; nothing is fetched."""
    files = {"train": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"}
    files["train"].write_text(LINES)
    more = base.dataset(source="gsm8k", max_prompt=38).to_dict()
    more |= {name: str(path) for name, path in files.items()}
    config = changed({"datasets": {"more": more}, "stages.grpo.data": "more"})
    assert examples_of(config, "grpo") == []
    files["test"].write_text(TEST)
    assert [example["question"] for example in examples_of(config, "grpo")] == [
        "0+1?", "1+1?", "2+1?", "3+1?",
    ]  # fmt: skip
    assert examples_of(changed({}), "grpo")[0]["id"] == "arithmetic-0-train-0"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ((), 0, "grpo: 0 of 53 are hacked", ""),
        (("--config.seed=-1",), 2, "", "error: seed=-1: expected an integer"),
    ],
)
def test_from_the_command_line(arguments, code, out, err, tmp_path):
    command = [sys.executable, "launch.py", "--config=configs/tiny.py", "--hack", *arguments]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == code and out in done.stdout and err in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_bad_file_is_an_error_of_one_line(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "1?"}) + "\n")
    files = [f"--config.data.{name}={tmp_path / name}.jsonl" for name in ("train", "test")]
    done = subprocess.run(
        [sys.executable, "launch.py", "--config=configs/gemma3_270m.py:gsm8k", "--hack", *files],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "answer" in done.stderr
    assert done.stderr.count("\n") == 1
