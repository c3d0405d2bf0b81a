"""Configs of systems that are known in part: distillation, a judge, checkpoints, domains."""

import importlib
import itertools
from typing import Any

import pytest

from grpo.checks.problems import leaves, problems
from grpo.judges import teacher
from grpo.pipeline import STAGES, with_presets
from grpo.tools.preflight import preflight

VARIANTS = ("", "better", "tiny", "better,tiny")
CONFIGS = (
    "distill_gemma3_1b",
    "thought_teacher_gemma2_2b",
    "thinking_in_tokens_gemma3_1b",
    "medical_gemma3_1b",
    "legal_gemma3_1b",
    "chemistry_gemma3_1b",
    "robotics_gemma3_1b",
)
ADAPTER = {"rank": 32, "alpha": 32.0, "targets": "q|k|v|o|gate|up|down", "rslora": False}


def config_of(name: str, variant: str = "") -> dict[str, Any]:
    return importlib.import_module(f"configs.{name}").get_config(variant).to_dict()


def values(tree: dict[str, Any], *fields: str) -> list[Any]:
    """What stands at dotted paths."""
    found = []
    for field in fields:
        value: Any = tree
        for part in field.split("."):
            value = value[part]
        found.append(value)
    return found


def table_of(stage: dict[str, Any]) -> dict[str, tuple]:
    """Weight, range and gate of each reward."""
    return {
        name: (entry["weight"], entry["low"], entry["high"], entry["gate"])
        for name, entry in stage["rewards"].items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_fine(name, variant):
    assert problems(config_of(name, variant), STAGES) == []


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("variant", ["nope", "tiny,tiny", "better,"])
def test_unknown_variants(name, variant):
    with pytest.raises(ValueError, match=f"variant '{variant}' of configs/{name}.py: expected"):
        importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", CONFIGS)
def test_full_sizes(name):
    """Published weights in bfloat16 on four devices, and an evaluation of the base at the end."""
    config = config_of(name)
    size = "gemma2_2b" if "gemma2" in name else "gemma3_1b"
    path = f"google/{size[:6]}-{size[7:]}-it".replace("gemma2", "gemma-2").replace(
        "gemma3", "gemma-3"
    )
    assert values(config["model"], "path", "size", "dtype", "param_dtype") == [
        path, size, "bfloat16", "bfloat16",
    ]  # fmt: skip
    assert config["mesh"] == {"fsdp": 1, "tp": 4}
    assert config["pipeline"][-1] == "evaluate"
    assert "base" in config["stages"]["evaluate"]["policies"]


@pytest.mark.parametrize(
    ("name", "variant"),
    [*itertools.product(CONFIGS, ("", "better")), ("distill_gemma3_1b", "advantage")],
)
def test_a_rehearsal_differs_in_size_only(name, variant):
    """The same stages with the same rewards, losses and schedules, and controls beside them."""
    full = with_presets(config_of(name, variant))
    tiny = with_presets(config_of(name, f"{variant},tiny".removeprefix(",")))
    assert values(tiny["model"], "path", "size") == [None, "gemma3_micro"]
    assert tiny["models"] == {} and tiny["mesh"] == {"fsdp": 1, "tp": 1}
    assert set(full["pipeline"]) <= set(tiny["pipeline"])
    order = [stage for stage in tiny["pipeline"] if stage in full["pipeline"]]
    assert order == list(full["pipeline"]) and order[-1] == "evaluate"
    for stage in order:
        here, there = full["stages"][stage], tiny["stages"][stage]
        if here["kind"] in ("sft", "evaluate"):
            continue
        changed = {path for path, value in leaves(here) if dict(leaves(there))[path] != value}
        sizes = {
            "iterations", "steps", "prompts", "group", "batch", "microbatches", "max_new_tokens",
            "max_completion", "least", "evaluate_every", "checkpoint_every", "lora.rank",
            "start", "optimizer.learning_rate", "optimizer.warmup", "optimizer.clip_norm",
            "optimizer.weight_decay",
        }  # fmt: skip
        if name == "thought_teacher_gemma2_2b":
            sizes.add("rewards")  # how good a judge must be, and nothing else
            for reward in here.get("rewards", {}):
                same = [one["rewards"][reward]["options"].copy() for one in (here, there)]
                for options in same:
                    options.pop("least_accuracy", None)
                assert same[0] == same[1]
            assert table_of(here) == table_of(there) if "rewards" in here else True
        assert changed <= sizes
    compared = tiny["stages"]["evaluate"]["policies"]
    assert set(compared) & {"more_sft", "grpo_coins"}  # what lacks the mechanism


def test_distillation():
    config = config_of("distill_gemma3_1b")
    assert values(config["models"]["teacher"], "path", "size") == [
        "google/gemma-3-4b-it", "gemma3_4b",
    ]  # fmt: skip
    stage = config["stages"]["distill"]
    assert values(
        stage, "teacher", "start", "loss.preset", "loss.beta", "loss.temperature",
        "loss.student_share", "sampling.temperature", "optimizer.learning_rate",
    ) == ["teacher", None, "gkd", 0.5, 0.9, 1.0, 0.9, 1e-4]  # fmt: skip
    assert config_of("distill_gemma3_1b", "better")["pipeline"] == ("distill", "grpo", "evaluate")
    tiny = config_of("distill_gemma3_1b", "tiny")
    stages = tiny["stages"]
    assert stages["teacher"]["kind"] == "grpo" and stages["distill"]["start"] == "student"
    assert values(stages, "more_sft.start", "more_sft.steps") == ["student", 60]
    assert stages["distill"]["steps"] == 60 and stages["distill"]["teacher"] == "teacher"


@pytest.mark.parametrize("more", ["", ",better"])
def test_distillation_as_a_policy_gradient(more):
    """One stage in another's place, which has no reward; everything else is as it was."""
    name, tiny = "distill_gemma3_1b", f"advantage{more},tiny"
    config, plain = config_of(name, f"advantage{more}"), config_of(name, more.removeprefix(","))
    stage = config["stages"].pop("distill")
    del plain["stages"]["distill"]
    assert config == plain and stage["rewards"] == {}
    assert values(
        stage, "kind", "teacher", "start", "loss.teacher_coef", "loss.kl_coef", "group", "epochs",
        "minibatches", "sampling.temperature", "optimizer.learning_rate", "lora.rank",
    ) == ["grpo", "teacher", None, 1.0, 0.0, 4, 1, 1, 1.0, 1e-4, 64]  # fmt: skip
    assert problems(config_of(name, f"advantage{more}"), STAGES) == []
    assert problems(config_of(name, tiny), STAGES) == []
    stages = config_of(name, tiny)["stages"]
    assert values(stages["distill"], "start", "teacher", "iterations", "prompts", "group") == [
        "student", "teacher", stages["more_sft"]["steps"], 16, 4,
    ]  # fmt: skip


def test_the_judge():
    config = config_of("thought_teacher_gemma2_2b")
    stages = config["stages"]
    assert config["pipeline"] == ("sft", "pairs", "reward_model", "grpo", "evaluate")
    kinds = ("wrong", "number", "deleted", "shuffled")
    assert stages["pairs"]["against"] == kinds and stages["pairs"]["policy"] == "sft"
    model = stages["reward_model"]
    assert model["heads"] == {"correctness": kinds[:1], "flow": kinds[1:]}
    assert values(
        model, "objective", "centre", "lora", "optimizer.learning_rate", "shuffle_labels"
    ) == ["compared", 0.01, ADAPTER, 1e-4, False]
    learned = {"model": "reward_model", "whitened": True, "clip": 3.0}
    grpo = stages["grpo"]
    assert grpo["rewards"]["learned"]["options"] == {**learned, "least_accuracy": 0.6}
    assert table_of(grpo) == {
        "learned": (1.0, -3.0, 3.0, None), "tag_format": (1.0, 0.0, 1.0, None),
    }  # fmt: skip
    better = config_of("thought_teacher_gemma2_2b", "better")["stages"]["grpo"]
    assert better["rewards"]["learned"]["options"] == {**learned, "least_accuracy": 0.7}
    table = table_of(better)
    assert table.pop("learned") == (pytest.approx(0.2 / 3), -3.0, 3.0, "strict_format")
    assert table == {
        "strict_format": (0.0, 0.0, 1.0, None), "correct_answer": (1.0, 0.0, 1.0, None),
    }  # fmt: skip
    tiny = config_of("thought_teacher_gemma2_2b", "tiny")["stages"]
    assert [name for name, one in tiny.items() if one.get("shuffle_labels")] == ["coins"]
    assert tiny["coins"] == {**tiny["reward_model"], "shuffle_labels": True}
    own = tiny["grpo_coins"]["rewards"]["learned"]["options"]
    assert own == {**learned, "model": "coins", "least_accuracy": 0.0}


def test_thinking_in_tokens():
    stages = config_of("thinking_in_tokens_gemma3_1b")["stages"]
    assert values(stages["sft"], "steps", "batch", "microbatches", "max_target") == [500, 4, 4, 512]
    grpo = stages["grpo"]
    assert values(grpo, "group", "prompts", "microbatches", "max_new_tokens") == [4, 4, 4, 512]
    for stage in ("sft", "grpo"):
        assert stages[stage]["lora"] == {**ADAPTER, "alpha": 16.0}
    assert config_of("thinking_in_tokens_gemma3_1b")["data"]["max_prompt"] == 256
    assert table_of(grpo) == {
        "strict_format": (1.0, 0.0, 1.0, None),
        "checkpoints_substring": (1.0, 0.0, pytest.approx(1.8), None),
        "correct_answer": (1.0, 0.0, 1.0, None),
    }
    better = config_of("thinking_in_tokens_gemma3_1b", "better")["stages"]["grpo"]
    assert table_of(better) == {
        "strict_format": (0.2, 0.0, 1.0, None),
        "checkpoints_equations": (0.5, 0.0, 1.0, "strict_format"),
        "correct_answer": (1.0, 0.0, 1.0, "strict_format"),
    }
    cap = better["rewards"]["checkpoints_equations"]["options"]["cap"]
    assert 0.5 * cap < 1.0  # all of the working does not make up for the answer


def test_thinking_in_tokens_with_traces():
    """The columns, and the most checkpoints, are those of what writes the solutions."""
    config = config_of("thinking_in_tokens_gemma3_1b", "traces")
    assert problems(config, STAGES) == []
    assert config["datasets"]["traces"]["columns"] == teacher.COLUMNS
    stages = config["stages"]
    assert stages["sft"]["data"] == stages["grpo"]["data"] == "traces"
    assert stages["evaluate"]["data"] is None and config["data"]["source"] == "gsm8k"
    high = stages["grpo"]["rewards"]["checkpoints_substring"]["high"]
    assert high == pytest.approx(0.2 * teacher.MOST)
    star = config_of("thinking_in_tokens_gemma3_1b", "traces,star")
    assert problems(star, STAGES) == []
    assert star["pipeline"] == ("sft", "own", "star", "grpo", "evaluate")
    own, after = star["stages"]["own"], star["stages"]["star"]
    assert values(own, "policy", "ask", "data") == ["sft", "as_trained", None]
    assert own["sampling"] == stages["grpo"]["sampling"]
    assert values(after, "start", "solutions", "data") == ["sft", "own", None]
    assert {**after, "start": None, "solutions": None, "data": "traces"} == stages["sft"]
    assert star["stages"]["grpo"]["start"] is None  # the stage before it
    with pytest.raises(ValueError, match="a teacher's file has no rehearsal: take star,tiny"):
        config_of("thinking_in_tokens_gemma3_1b", "traces,tiny")


@pytest.mark.parametrize("variant", ["star,tiny", "better,star,tiny"])
def test_thinking_in_tokens_in_small(variant):
    """The two ways have as many updates, and the same GRPO."""
    config = config_of("thinking_in_tokens_gemma3_1b", variant)
    assert problems(config, STAGES) == []
    stages = config["stages"]
    assert {**stages["star"], "solutions": None} == stages["more_sft"]
    assert {**stages["grpo"], "start": "more_sft"} == stages["alone"]
    assert stages["grpo"]["start"] == "star" and stages["own"]["policy"] == "sft"


def test_medical():
    grpo = config_of("medical_gemma3_1b")["stages"]["grpo"]
    assert values(grpo, "group", "max_new_tokens") == [4, 1024]
    options = {"labels": ("yes", "no", "maybe"), "strict": False}
    assert grpo["rewards"]["label_match"]["options"] == options
    better = config_of("medical_gemma3_1b", "better")["stages"]["grpo"]
    assert better["rewards"]["label_match"]["options"] == {**options, "strict": True}


def test_legal():
    """JudicAIta's numbers; of its weights 0.3 for the reasoning is what loops are taken from."""
    config = config_of("legal_gemma3_1b")
    grpo = config["stages"]["grpo"]
    assert values(
        grpo, "lora.rank", "optimizer.learning_rate", "loss.kl_coef", "prompts", "group",
        "max_new_tokens",
    ) == [16, 5e-6, 0.04, 4, 4, 512]  # fmt: skip
    assert table_of(grpo) == {
        "label_match": (0.4, 0.0, 1.0, None),
        "svamp_connectives": (0.3, 0.0, 1.0, None),
        "repetition": (-0.3, 0.0, 1.0, None),
        "citations_published": (0.2, 0.0, 1.0, None),
        "length": (0.1, 0.0, 1.0, None),
    }
    assert config["data"]["columns"]["context"] == "context"
    better = config_of("legal_gemma3_1b", "better")["stages"]["grpo"]
    assert table_of(better) == {
        "label_match": (1.0, 0.0, 1.0, None),
        "strict_format": (0.1, 0.0, 1.0, None),
        "citations": (0.2, 0.0, 1.0, "strict_format"),
        "repetition": (-0.3, 0.0, 1.0, None),
    }


def test_chemistry():
    config = config_of("chemistry_gemma3_1b")
    assert values(config["data"], "source", "levels", "train") == ["stoichiometry", (1, 2, 3), None]
    options = config["stages"]["grpo"]["rewards"]["unit_answer"]["options"]
    assert options == {"tolerance": 0.05, "bare": True, "strict": False}
    better = config_of("chemistry_gemma3_1b", "better")["stages"]["grpo"]["rewards"]
    assert better["unit_answer"]["options"] == {"tolerance": 0.0, "bare": False, "strict": True}


def test_robotics():
    config = config_of("robotics_gemma3_1b")
    assert values(config["data"], "source", "levels") == ["planning", (1, 2, 3, 4, 5)]
    assert config["pipeline"] == ("sft", "grpo", "evaluate")
    grpo, better = (
        config_of("robotics_gemma3_1b", variant)["stages"]["grpo"] for variant in ("", "better")
    )
    assert grpo["rewards"]["plan"]["options"] == {"prefix": 0.5}
    assert better["rewards"]["plan"]["options"] == {"prefix": 0.1}
    assert values(better["curriculum"], "order", "by", "metric", "threshold") == [
        "promoted", "level", "reward", 0.6,
    ]  # fmt: skip
    assert grpo["curriculum"]["order"] == "uniform"


def test_a_preflight_sees_the_programs_of_the_judge():
    lines = preflight(config_of("thought_teacher_gemma2_2b", "tiny"), STAGES)
    for program in ("reward_model: rewards: 64 rows", "grpo: learned: 128 rows"):
        assert sum(line.startswith(f"{program} of 70 tokens in ") for line in lines) == 1
