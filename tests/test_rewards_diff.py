"""What a reward with an option costs: a diff, made in a copy of the tree and run there."""

import json
import re
import subprocess
import sys

from grpo.rewards.extract import lenient
from tests.diffs import HERE, ROOT, changes, copy_with

DIFF = "batch_reward.diff"
SMALL = (
    "--config=configs/tiny.py",
    "--config.pipeline=('grpo',)", "--config.data.train_examples=20",
    "--config.data.test_examples=4", "--config.stages.grpo.iterations=1",
    "--config.stages.grpo.prompts=2", "--config.stages.grpo.microbatches=1",
    "--config.stages.grpo.max_new_tokens=8", "--config.stages.grpo.evaluate_every=0",
    "--config.stages.grpo.loss.kl_coef=0",
)  # fmt: skip
OPTION = "--config.stages.grpo.rewards.shortest.options.threshold"


def test_a_function_an_entry_and_a_line_of_a_config():
    """Nothing else, and what README shows of it."""
    text = (HERE / DIFF).read_text()
    files = ["grpo/rewards/shortest.py", "grpo/rewards/table.py", "configs/tiny.py"]
    assert list(changes(DIFF)) == files
    assert len(re.findall(r"^\+(?!\+)", text, re.M)) == 21
    assert not re.findall(r"^-(?!-)", text, re.M)
    readme = (ROOT / "README.md").read_text()
    for line in ("def shortest(", '"shortest": shortest,', "grpo.rewards.shortest = base.reward("):
        assert line in readme and line in text


def test_its_option_arrives(tmp_path):
    """From the command line: the values are those of the threshold given, not of the config's."""
    tree = tmp_path / "tree"
    copy_with(DIFF, tree)
    command = [sys.executable, "launch.py", *SMALL, f"{OPTION}=1.2", "--workdir=run"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tree / "run" / "config.json").read_text())
    assert config["stages"]["grpo"]["rewards"]["shortest"]["options"] == {"threshold": 1.2}
    rows = [json.loads(line) for line in (tree / "run" / "rollouts.jsonl").read_text().splitlines()]
    lengths: dict[tuple, list[int]] = {}
    keys = [(row["id"], lenient(row["completion"])) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        lengths.setdefault(key, []).append(len(row["completion"]))

    def expected(threshold: float) -> list[float]:
        pairs = zip(keys, rows, strict=True)
        return [len(row["completion"]) <= threshold * min(lengths[key]) for key, row in pairs]

    got = [row["reward"]["shortest"] for row in rows]
    assert len(rows) == 16 and got == expected(1.2) != expected(1.5)
