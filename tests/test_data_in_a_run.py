"""A run of several datasets: every stage reads the one, and the split, that it names."""

import json

import pytest

import grpo.runs.stage_loop
import grpo.stages.sft
from configs import base
from tests.small_run import (
    C,
    G,
    P,
    launch,
    rows,
    small,
    small_evaluate,
    small_grpo,
    small_sft,
    workshop,
)

ASKED = "Solve the problem step by step."  # the other template begins so
COLUMNS = {"question": "task", "answer": "result", "reasoning": "why"}


def config_of(folder):
    """Supervised training on the one dataset; GRPO, and an evaluation, on the other."""
    tasks = [{"task": f"What is {n} and 1?", "result": str(n + 1), "why": "so"} for n in range(10)]
    (folder / "more.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    config = small()
    config.data.update(validation_examples=3, buckets=(160,))
    config.datasets.more = base.dataset(
        source="rows", train=str(folder / "more.jsonl"), columns=COLUMNS, validation_examples=2,
        template="reasoning_tags", max_prompt=160,
    )  # fmt: skip
    config.evaluation.split = "validation"
    config.stages.sft, config.stages.grpo = small_sft(), small_grpo()
    config.stages.sft.update(steps=1, evaluate_every=1)
    config.stages.grpo.update(iterations=1, data="more", evaluate_every=1)
    config.stages.grpo.loss.kl_coef = 0.0  # nothing to compile for a reference
    config.stages.evaluate = small_evaluate()
    config.stages.evaluate.update(data="more", split="validation", policies=("grpo",))
    config.stages.trained = small_evaluate()
    config.stages.trained.update(split="train", policies=("sft",), examples=2)
    config.pipeline = ("sft", "trained", "grpo", "evaluate")
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run; what was learnt from, and what was measured while it went."""
    folder, learnt, measured = tmp_path_factory.mktemp("data"), [], []
    prompt_ids = grpo.stages.sft.prompt_ids
    evaluate = grpo.runs.stage_loop.evaluate_greedy

    def seen_prompt(tokenizer, example, template):
        learnt.append((example["id"], template["instruction"]))
        return prompt_ids(tokenizer, example, template)

    def seen_evaluation(policy, examples, setting, **sizes):
        measured.append(([e["id"] for e in examples], setting.template["instruction"]))
        return evaluate(policy, examples, setting, **sizes)

    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.sft, "prompt_ids", seen_prompt)
        patch.setattr(grpo.runs.stage_loop, "evaluate_greedy", seen_evaluation)
        assert launch(config_of(folder), folder / "run") == 0
    return folder / "run", learnt, measured


def ids_of(dataset: str, split: str, count: int) -> list[str]:
    if dataset == "data":
        return [f"arithmetic-0-{split}-{n}" for n in range(count)]
    return [f"more:{n}" for n in range(1, 11)][slice(8) if split == "train" else slice(8, 10)]


def test_supervised_training_reads_the_default(run):
    _, learnt, _ = run
    assert len(learnt) == 2
    assert all(name in ids_of("data", "train", 24) and not text for name, text in learnt)


def test_grpo_reads_the_other_with_its_template(run):
    completions = rows(run[0], "rollouts")
    assert len(completions) == P * G
    assert {row["id"] for row in completions} <= set(ids_of("more", "train", 7))
    for row in completions:
        assert ASKED in row["prompt"] and int(row["gold"]) == int(row["id"].split(":")[1])
        assert row["tokens"] <= C


def test_running_evaluations_are_on_the_validation_split_of_what_is_learnt_from(run):
    of_sft, of_grpo = run[2][:2], run[2][2:]
    assert of_sft == [(ids_of("data", "validation", 3), "")] * 2
    assert [ids for ids, _ in of_grpo] == [ids_of("more", "validation", 2)] * 2
    assert all(ASKED in text for _, text in of_grpo)


def test_evaluations_are_on_the_split_they_name(run):
    def ids(stage):
        return [row["id"] for row in rows(run[0] / "evaluations", stage)]

    assert ids("evaluate") == ids_of("more", "validation", 2)
    assert ids("trained") == ids_of("data", "train", 2)


def test_every_dataset_is_reported_by_name(run):
    got = json.loads((run[0] / "data.json").read_text())
    assert list(got) == ["data", "more"]
    assert [got["data"][f"{part}/examples"] for part in ("train", "validation", "test")] == [
        24, 3, 4,
    ]  # fmt: skip
    assert got["more"] == {
        "source": "rows", "train/rows": 10, "train/duplicates": 0, "train/bad": [],
        "train/kept": 1.0, "train/examples": 8, "validation/kept": 1.0, "validation/examples": 2,
    }  # fmt: skip


def test_the_summary_says_what_was_measured(run):
    assert "accuracy on validation problems" in (run[0] / "summary.md").read_text()
