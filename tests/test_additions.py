"""What a stage, a loss, a dataset, an experiment and an array of the sampler cost: diffs, made in
copies of the tree.

What a reward with an option costs is in test_rewards_diff.py.
"""

import json
import re
import subprocess
import sys

from tests.diffs import HERE, changes, copy_with

CHECK = """
import json
from configs import tiny, base
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.tools.preflight import preflight
config = tiny.get_config()
config.stages.backwards = base.reverse()
config.pipeline = ("backwards",)
print(json.dumps([problems(config.to_dict(), STAGES), preflight(config.to_dict(), STAGES)]))
config.stages.backwards.update(batch=6, microbatches=7, length=0)
print(json.dumps(problems(config.to_dict(), STAGES)))
"""
CONFIG = """
from configs import tiny, base
def get_config():
    config = tiny.get_config()
    config.data.update(train_examples=20, test_examples=4)
    config.stages.backwards = base.reverse()
    config.stages.backwards.update(steps=3, batch=2)
    config.stages.backwards.optimizer.learning_rate = 1e-2
    config.pipeline = ("backwards",)
    return config
"""


def added(diff: str) -> dict[str, int]:
    """By file: how many lines a diff adds."""
    parts = re.split(r"^\+\+\+ b/(.*)\n", (HERE / diff).read_text(), flags=re.M)[1:]
    return {
        file: len(re.findall(r"^\+", text, re.M))
        for file, text in zip(parts[::2], parts[1::2], strict=True)
    }


def python(tree, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_stage_is_one_file_its_defaults_and_its_name():
    lines = added("stage.diff")
    assert list(lines) == ["configs/base.py", "grpo/pipeline.py", "grpo/stages/reverse.py"]
    assert lines["grpo/pipeline.py"] == 2 and lines["configs/base.py"] == 17


def test_the_stage_is_checked_lowered_and_run(tmp_path):
    tree = tmp_path / "tree"
    copy_with("stage.diff", tree)
    (fine, lowered), wrong = map(json.loads, python(tree, "-c", CHECK).splitlines())
    assert fine == []
    assert any(line.startswith("backwards: update: 8 rows of 54 tokens") for line in lowered)
    assert [line.split(":")[0] for line in wrong] == ["stages.backwards.length=0"]
    (tree / "configs" / "toy.py").write_text(CONFIG)
    python(tree, "launch.py", "--config=configs/toy.py", "--workdir=run")
    rows = [json.loads(line) for line in (tree / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [("backwards", n) for n in (1, 2, 3)]
    assert rows[2]["loss"] < rows[0]["loss"]
    assert (tree / "run" / "checkpoints" / "backwards" / "00000003").is_dir()


SMALL = (
    "--config=configs/tiny.py", "--config.pipeline=('grpo',)", "--config.data.train_examples=20",
    "--config.data.test_examples=4", "--config.stages.grpo.iterations=1",
    "--config.stages.grpo.prompts=2", "--config.stages.grpo.microbatches=1",
    "--config.stages.grpo.max_new_tokens=8", "--config.stages.grpo.evaluate_every=0",
)  # fmt: skip


def test_an_array_is_declared_where_it_is_sampled_and_where_it_is_kept(tmp_path):
    """Carried through dynamic sampling, minibatches and microbatches to a metric of the loss."""
    assert added("token_field.diff") == {
        "grpo/algorithms/groups.py": 1,
        "grpo/algorithms/losses.py": 1,
        "grpo/rollout/sampler.py": 2,
    }
    tree = tmp_path / "tree"
    copy_with("token_field.diff", tree)
    python(tree, "launch.py", *SMALL, "--workdir=run")
    (row,) = map(json.loads, (tree / "run" / "metrics.jsonl").read_text().splitlines())
    rollouts = (tree / "run" / "rollouts.jsonl").read_text().splitlines()
    tokens = sum(json.loads(line)["tokens"] for line in rollouts)
    assert abs(row["first"] - len(rollouts) / tokens) < 1e-6
    assert len(changes("token_field.diff")) == 3


def test_a_loss_is_a_function_and_its_name(tmp_path):
    """It arrives by its name in a config; nothing of the preset that it does not read is left."""
    assert added("loss.diff") == {"grpo/algorithms/surrogates.py": 6}
    tree = tmp_path / "tree"
    copy_with("loss.diff", tree)
    value = "float(SURROGATES['unclipped'](jnp.float32(1.5), jnp.float32(2), jnp.float32(0)))"
    names = "import jax.numpy as jnp; from grpo.algorithms.surrogates import SURROGATES"
    assert python(tree, "-c", f"{names}; print({value})") == "3.0\n"
    surrogate = "--config.stages.grpo.loss.surrogate=unclipped"
    python(tree, "launch.py", *SMALL, surrogate, "--workdir=run")
    loss = json.loads((tree / "run" / "config.json").read_text())["stages"]["grpo"]["loss"]
    assert loss["surrogate"] == "unclipped" and loss["clip_low"] is None
    (row,) = map(json.loads, (tree / "run" / "metrics.jsonl").read_text().splitlines())
    assert "loss/policy" in row and "clip/low" not in row


def test_a_dataset_is_a_file_and_its_name(tmp_path):
    assert added("dataset.diff") == {"grpo/data/doubling.py": 18, "grpo/data/worlds.py": 2}
    tree = tmp_path / "tree"
    copy_with("dataset.diff", tree)
    world = {"source": "doubling", "levels": "(2,)", "validation_examples": 4}
    flags = [f"--config.data.{name}={value}" for name, value in world.items()]
    python(tree, "launch.py", *SMALL, *flags, "--workdir=run")
    rows = map(json.loads, (tree / "run" / "rollouts.jsonl").read_text().splitlines())
    asked = {(row["prompt"], row["gold"]) for row in rows}
    assert len(asked) == 2
    for prompt, gold in asked:
        number = re.search(r"What is twice (\d+)\?", prompt)
        assert number and int(gold) == 2 * int(number[1])


def test_an_experiment_is_a_file(tmp_path):
    assert added("experiment.diff") == {"configs/larger_groups.py": 19}
    tree = tmp_path / "tree"
    copy_with("experiment.diff", tree)
    code = """
from configs import larger_groups, tiny
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
for variant in ("", "no_kl"):
    config = larger_groups.get_config(variant)
    print(problems(config.to_dict(), STAGES), config.stages.grpo.loss.kl_coef)
    ours, theirs = config.stages.grpo, tiny.get_config().stages.grpo
    assert ours.prompts * ours.group == theirs.prompts * theirs.group
"""
    assert python(tree, "-c", code) == "[] None\n[] 0.0\n"


def test_the_page_on_additions_counts_their_lines():
    """And shows of them what is in them."""
    page = (HERE.parent.parent / "docs" / "extending.md").read_text()
    rows = re.findall(r"\| (\d+) \| \[(\w+\.diff)\]\(\.\./tests/diffs/\2\) \|", page)
    assert {diff for _, diff in rows} == {path.name for path in HERE.glob("*.diff")}
    for lines, diff in rows:
        assert int(lines) == sum(added(diff).values()), diff
    texts = [path.read_text() for path in HERE.glob("*.diff")]
    shown = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    assert len(shown) >= 6
    for block in shown:
        assert any(block in text for text in texts), block
