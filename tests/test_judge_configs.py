"""The configs whose policy is paid by a judge: S6 and S7."""

import importlib
from typing import Any

import pytest

from grpo.checks.problems import leaves, problems
from grpo.data.datasets import load_datasets, sections_of
from grpo.pipeline import STAGES, with_presets

VARIANTS = ("", "better", "tiny", "better,tiny")
CONFIGS = ("rar_gemma2_2b", "pinocchio_gemma3_1b")
SIZES = {  # what a rehearsal may change of a stage beside its rewards
    "iterations", "steps", "prompts", "batch", "microbatches", "max_new_tokens", "max_target",
    "max_completion", "least", "evaluate_every", "checkpoint_every", "lora.rank", "start",
    "optimizer.learning_rate", "optimizer.schedule_updates", "examples",
}  # fmt: skip


def config_of(name: str, variant: str = "") -> dict[str, Any]:
    return importlib.import_module(f"configs.{name}").get_config(variant).to_dict()


def table_of(stage: dict[str, Any]) -> dict[str, tuple]:
    """Weight, gate and judge of each reward."""
    return {
        name: (entry["weight"], entry["gate"], entry["options"].get("judge"))
        for name, entry in stage["rewards"].items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_fine(name, variant):
    config = config_of(name, variant)
    assert [one for one in problems(config, STAGES) if not one.startswith("mesh:")] == []
    assert sorted(config["pipeline"]) == sorted(config["stages"])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("variant", ["nope", "tiny,tiny", "better,"])
def test_unknown_variants(name, variant):
    with pytest.raises(ValueError, match=f"variant '{variant}' of configs/{name}.py: expected"):
        importlib.import_module(f"configs.{name}").get_config(variant)


def test_rubrics_as_rewards():
    """Form, answer and a rating, one each; Gemma-3-12B reads, by all criteria at once."""
    config = config_of("rar_gemma2_2b")
    assert config["model"]["path"] == "google/gemma-2-2b-it"
    assert config["models"]["judge"]["path"] == "google/gemma-3-12b-it"
    judge = config["judges"]["rubric"]
    assert [judge[f] for f in ("model", "prompt", "rubric", "scale", "scores")] == [
        "judge", "overall", "generic", "nine", "soft",
    ]  # fmt: skip
    assert table_of(config["stages"]["grpo"]) == {
        "strict_format": (1.0, None, None), "correct_answer": (1.0, None, None),
        "judged": (1.0, None, "rubric"),
    }  # fmt: skip
    assert config["pipeline"] == ("sft", "grpo", "greedy")
    assert config["mesh"] == {"fsdp": 2, "tp": 2} and config["stages"]["grpo"]["staleness"] == 1
    assert config["meshes"] == {"judge": {"fsdp": 2, "tp": 2, "first": 4}}  # the other half
    better = config_of("rar_gemma2_2b", "better")
    assert better["pipeline"] == ("sft", "grpo", "greedy", "grades")
    assert better["stages"]["grades"]["judges"] == ("look_on",)
    assert better["judges"]["rubric"]["rubric"] == "steps"
    assert better["judges"]["look_on"]["rubric"] == "generic"
    assert table_of(better["stages"]["grpo"]) == {
        "strict_format": (0.2, None, None), "correct_answer": (1.0, None, None),
        "judged": (0.5, "strict_format", "rubric"), "held_out_judged": (0.0, None, "look_on"),
    }  # fmt: skip


def test_pinocchio():
    """A teacher's traces, SimPO without a reference at 5e-7, and a judge by HTTP alone."""
    config = config_of("pinocchio_gemma3_1b")
    assert config["model"]["path"] == "google/gemma-3-1b-it"
    assert config["pipeline"] == ("sft", "pairs", "simpo", "grpo", "evaluate")
    sft, simpo, grpo = (config["stages"][name] for name in ("sft", "simpo", "grpo"))
    assert 70_000 - 32 < sft["steps"] * sft["batch"] <= 70_000
    assert config["data"]["source"] == "traces" and sft["data"] is None
    loss = with_presets(config)["stages"]["simpo"]["loss"]
    assert [loss[f] for f in ("score", "beta", "gamma", "sft_coef")] == ["mean", 2.0, 0.5, 0.0]
    assert simpo["optimizer"]["learning_rate"] == 5e-7
    judge = config["judges"]["grades"]
    assert judge["url"] and judge["key"] is None and judge["rubric"] == "pinocchio"
    assert table_of(grpo) == {"judged": (1.0, None, "grades")} and grpo["staleness"] == 1
    better = config_of("pinocchio_gemma3_1b", "better")
    asked = {name: (one["url"], one["name"]) for name, one in better["judges"].items()}
    assert asked["grades"][0] != asked["look_on"][0] and asked["grades"][1] != asked["look_on"][1]
    assert better["stages"]["simpo"]["loss"]["sft_coef"] == 1.0
    assert table_of(better["stages"]["grpo"])["held_out_judged"] == (0.0, None, "look_on")


@pytest.mark.parametrize("variant", ["", "better"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_rehearsal_is_the_same_in_small(name, variant):
    """The same stages in order, and a judge that it trains; nothing that compares answers."""
    full, tiny = config_of(name, variant), config_of(name, f"{variant},tiny".removeprefix(","))
    assert tiny["model"]["path"] is None and tiny["models"] == {}
    assert tiny["mesh"] == {"fsdp": 1, "tp": 1}
    # But for the grades at the end: the small judge knows no rubric.
    stages = [stage for stage in full["pipeline"] if stage != "grades"]
    assert [stage for stage in tiny["pipeline"] if stage in stages] == stages
    assert set(tiny["pipeline"]) - set(stages) == {"judge", "shuffled"}
    assert tiny["judges"].keys() == full["judges"].keys()
    for judge in tiny["judges"].values():
        assert (judge["model"], judge["url"], judge["rubric"]) == ("judge", None, "steps")
    for stage in set(stages) - {"greedy", "evaluate"}:
        here, there = dict(leaves(full["stages"][stage])), dict(leaves(tiny["stages"][stage]))
        changed = {path for path, value in here.items() if there.get(path) != value}
        assert {path for path in changed if not path.startswith("rewards")} <= SIZES
    rewards, small = (table_of(one["stages"]["grpo"]) for one in (full, tiny))
    assert set(small) == set(rewards) - {"correct_answer"} | {"strict_format"}
    assert all(small[reward] == rewards[reward] for reward in set(small) & set(rewards))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_control_differs_by_whose_reward_it_is(name):
    stages = config_of(name, "tiny")["stages"]
    assert stages["shuffled"] == {**stages["grpo"], "shuffle_rewards": True}
    assert not stages["grpo"]["shuffle_rewards"] and stages["grpo"]["start"] in ("sft", "simpo")


def test_the_data_of_a_rehearsal():
    """What the judge learns from, and what the policy is asked, can be made."""
    config = config_of("rar_gemma2_2b", "tiny")
    config["datasets"]["finding"]["train_examples"] = 400
    loaded = load_datasets(sections_of(config), 0)
    assert {e["answer"] for e in loaded["finding"].train} == {"yes", "no"}
    assert all(e["checkpoints"] for e in loaded["data"].train)
