"""A run of several datasets: every stage reads the one, and the split, that it names."""

import json

import pytest

import grpo.data.packing
import grpo.rollout.generate
import grpo.runs.stage_loop
import grpo.stages.sft
from configs import base
from grpo.data.datasets import load_datasets
from grpo.data.padding import pad_prompts
from grpo.pipeline import STAGES
from grpo.runs.setup import texts_of
from grpo.runs.shapes import base_of, shapes_at_start
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

SHORT, LONG = 160, 320  # the buckets; prompts with shots need the long one
ASKED = "Solve the problem step by step."  # the other template begins so
COLUMNS = {"question": "task", "answer": "result", "reasoning": "why"}


def config_of(folder):
    """Supervised training on the one dataset; GRPO, and an evaluation, on the other."""
    tasks = [{"task": f"What is {n} and 1?", "result": str(n + 1), "why": "so"} for n in range(10)]
    (folder / "more.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    config = small()
    config.data.update(validation_examples=3, buckets=(SHORT, LONG))
    config.datasets.more = base.dataset(
        source="rows", train=str(folder / "more.jsonl"), columns=COLUMNS, validation_examples=2,
        template="reasoning_tags", max_prompt=SHORT,
    )  # fmt: skip
    config.datasets.few = base.dataset(
        train_examples=24, validation_examples=3, test_examples=4, levels=(1,), shots=4,
        max_prompt=LONG,
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
    config.stages.few_shot = small_evaluate()
    config.stages.few_shot.update(data="few", policies=("base",))
    config.pipeline = ("sft", "trained", "grpo", "evaluate", "few_shot")
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run; what was learnt from, measured while it went; widths of prompts."""
    folder, learnt, measured, widths = tmp_path_factory.mktemp("data"), [], [], []
    prompt_ids = grpo.stages.sft.prompt_ids
    evaluate = grpo.runs.stage_loop.evaluate_greedy

    def seen_prompt(tokenizer, example, template):
        learnt.append((example["id"], template["instruction"]))
        return prompt_ids(tokenizer, example, template)

    def seen_evaluation(policy, examples, setting, **sizes):
        measured.append(([e["id"] for e in examples], setting.template["instruction"]))
        return evaluate(policy, examples, setting, **sizes)

    def seen_widths(prompts, buckets):
        padded = pad_prompts(prompts, buckets)
        widths.append(padded[0].shape[1])
        return padded

    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.sft, "prompt_ids", seen_prompt)
        patch.setattr(grpo.runs.stage_loop, "evaluate_greedy", seen_evaluation)
        patch.setattr(grpo.data.packing, "pad_prompts", seen_widths)
        patch.setattr(grpo.rollout.generate, "pad_prompts", seen_widths)
        assert launch(config_of(folder), folder / "run") == 0
    return folder / "run", learnt, measured, widths


def ids_of(dataset: str, split: str, count: int) -> list[str]:
    if dataset == "data":
        return [f"arithmetic-0-{split}-{n}" for n in range(count)]
    return [f"more:{n}" for n in range(1, 11)][slice(8) if split == "train" else slice(8, 10)]


def test_supervised_training_reads_the_default(run):
    _, learnt, *_ = run
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
    assert list(got) == ["data", "few", "more"]
    assert [got["data"][f"{part}/examples"] for part in ("train", "validation", "test")] == [
        24, 3, 4,
    ]  # fmt: skip
    assert got["few"]["shots"] == ids_of("data", "train", 4)
    assert [got["few"][f"{part}/examples"] for part in ("train", "test")] == [20, 4]
    assert got["more"] == {
        "source": "rows", "train/rows": 10, "train/duplicates": 0, "train/bad": [],
        "train/kept": 1.0, "train/examples": 8, "validation/kept": 1.0, "validation/examples": 2,
    }  # fmt: skip


def test_the_summary_says_what_was_measured(run):
    text = (run[0] / "summary.md").read_text()
    assert "accuracy on validation problems" in text
    assert "On the test split of few, with 4 worked examples before each question." in text


def test_shots_stand_before_the_questions_of_their_dataset_alone(run):
    """The same test problems as those of the default; rows show the question by itself."""
    folder, *_, widths = run
    measured = rows(folder / "evaluations", "few_shot")
    assert [row["id"] for row in measured] == ids_of("data", "test", 4)
    assert all("<answer>" not in row["question"] for row in measured)
    assert widths[-2:] == [LONG] * 2 and set(widths[:-2]) == {SHORT}  # 4 problems, 2 at a time


def test_a_tokenizer_is_trained_on_the_same_texts_with_shots_and_without():
    sections = {f"{n} shots": base.dataset(train_examples=9, shots=n).to_dict() for n in (0, 2, 9)}
    without, *others = (texts_of(dataset) for dataset in load_datasets(sections, 3).values())
    assert len(without) == 9 and others == [without] * 2


def test_only_stages_of_long_prompts_have_programs_for_them(tmp_path):
    """Rounds of refill, which are padded to the longest bucket, are to that of their dataset."""
    config = config_of(tmp_path)
    config.stages.refill = refill = config.stages.grpo.copy_and_resolve_references()
    refill.update(dynamic_sampling="refill", max_rounds=2)
    refill.loss.kl_coef = 0.04
    config = config.to_dict()
    base_policy, found = base_of(config), {}
    for name in ("sft", "trained", "grpo", "refill", "few_shot"):
        stage = config["stages"][name]
        programs = STAGES[stage["kind"]].build(config, name, shapes_at_start(base_policy, stage))
        found[name] = {
            tuple(widths_of(program))
            for what, program in programs.items()
            if "decoding weights" not in what
        }
    target, new = SHORT + config["stages"]["sft"]["max_target"], SHORT + C
    assert found == {
        "sft": {(target,), (SHORT,)}, "trained": {(SHORT,)}, "grpo": {(new,), (SHORT,)},
        "refill": {(new,), (SHORT,)}, "few_shot": {(SHORT, LONG)},
    }  # fmt: skip


def test_running_evaluations_have_programs_for_what_they_read(tmp_path):
    """Of a dataset with longer prompts than the stage learns from, and of the stage's own."""
    config = config_of(tmp_path).to_dict()
    start, found = base_of(config), []
    for data in (None, "few"):
        config["evaluation"]["data"] = data
        programs = STAGES["grpo"].build(config, "grpo", start)
        found.append(tuple(widths_of(programs["running evaluation, rollout"])))
    assert found == [(SHORT,), (SHORT, LONG)]


def widths_of(program):
    """The columns of what each case of a program reads: of a batch, or of prompts."""
    for case in program.cases:
        ids = case[2] if not hasattr(case[2], "ids_BT") else case[2].ids_BT
        yield ids.shape[1]
