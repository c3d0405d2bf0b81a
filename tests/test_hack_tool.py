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
    first, of_all, table, last = hack(changed({}))
    assert of_all == "grpo: a total is 0.00 to 1.00"
    assert first == "grpo: 4 built-in examples, 4 of its dataset"
    lines = table.split("\n")
    assert len(lines) == 3 + len(CASES) and len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "the worked solution", "right", "1.00", "100%", "",
    ]  # fmt: skip
    assert last.startswith(f"grpo: 0 of {len(CASES)} are hacked")


def test_what_is_hacked_is_counted():
    options = {f"{REWARDS_OF}.correct_answer.options.strict": False}
    *_, table, last = hack(changed(options))
    assert "| hacked 8 of 8 |" in next(line for line in table.split("\n") if "a sentence" in line)
    assert last.startswith(f"grpo: 16 of {len(CASES)} are hacked") and "0 right ones" in last


def test_a_share_is_of_the_whole_range():
    """From -3 to 1: 0 is three quarters of it."""
    *_, of_all, table, _ = hack(changed({f"{REWARDS_OF}.correct_answer.low": -3.0}))
    nothing = next(line for line in table.split("\n") if line.startswith("| nothing "))
    assert of_all == "grpo: a total is -3.00 to 1.00"
    assert "| 0.00 | 75% |" in " ".join(nothing.split())


def test_every_stage_with_rewards(monkeypatch):
    """In the order of the pipeline; a reward that fails says why."""

    def broken(example, completion):
        raise KeyError("rubric\x1b[2J")

    monkeypatch.setitem(REWARDS, "hybrid", each(broken))
    config = changed({}, "controls")
    config["stages"]["shuffled"]["rewards"] = {"hybrid": base.reward(1.0, 0.0, 2.6).to_dict()}
    lines = hack(config)
    assert [line.split(":")[0] for line in lines if "\n" not in line] == [
        "grpo", "grpo", "grpo", "shuffled", "shuffled", "shuffled", "shuffled",
    ]  # fmt: skip
    assert "completions have no total: KeyError: " in lines[-1]
    assert "| none | |" in " ".join(lines[-3].split()) and "\x1b" not in "".join(lines)
    config["pipeline"] = ("sft",)
    assert hack(config) == ["no stage of the pipeline has rewards"]


def test_rewards_for_other_domains_are_said_and_left_out():
    """The others go on, by themselves; of none there is no table."""
    entries = {
        f"{REWARDS_OF}.tag_format": base.reward(1.0, 0.0, 3.0, domains=("law",)).to_dict(),
        f"{REWARDS_OF}.correct_answer.domains": ("math", "law"),
    }
    _, left_out, *some, of_all, table, _ = hack(changed(entries))
    assert left_out == "grpo: tag_format is not for these examples, but for law"
    assert some == ["grpo: no reward with a weight is for 4 of the examples"]  # of the dataset
    assert of_all == "grpo: a total is 0.00 to 1.00" and "hacked" not in table
    entries[f"{REWARDS_OF}.correct_answer.domains"] = ("law", "medicine")
    assert hack(changed(entries))[1:] == [
        "grpo: correct_answer is not for these examples, but for law, medicine", left_out,
        "grpo: no reward with a weight is for 8 of the examples",
    ]  # fmt: skip


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
        ((), 0, "grpo: 0 of 59 are hacked", ""),
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
