"""The configs after public systems: nothing wrong with any, and every number that is known."""

import importlib

import pytest

from configs import efficiency_gemma3_1b
from configs import grpo_demo_gemma3_1b as demo
from grpo.checks.problems import problems
from grpo.data.datasets import load_dataset, load_datasets
from grpo.data.templates import TEMPLATES, prompt_ids, target_text
from grpo.pipeline import STAGES, with_presets
from grpo.rewards.scaffold import scaffold
from models.config import SIZES
from tests.gsm8k import real_path
from tests.references.chat_tokenizers import tokenizer
from tests.test_demo_config import flat

USUAL = ("", "better", "tiny", "better,tiny")
VARIANTS = {
    "efficiency_gemma3_1b": (*USUAL, *efficiency_gemma3_1b.grid(), "r8,p4,tiny", "better,r16,p8"),
    "full_sft_gemma3_1b": USUAL,
    "grpo_gemma2_2b": USUAL,
    "hybrid_gemma3_1b": USUAL,
    "ideae_gemma2_2b": USUAL,
    "relay_gemma2_2b": (*USUAL, "notebook", "notebook,tiny"),
    "rlpr_gemma2_2b": USUAL,
    "sft_dpo_grpo_gemma2_2b": USUAL,
    "svamp_gemma3_1b": USUAL,
    "trajectory_gemma2_2b": USUAL,
}
GEMMA3 = {"model.path": "google/gemma-3-1b-it", "model.size": "gemma3_1b"}
GEMMA2 = {"model.path": "google/gemma-2-2b-it", "model.size": "gemma2_2b"}
G, S = "stages.grpo.", "stages.sft."
OF_DEMO = {  # AdamW and sampling of the public demo
    "optimizer.learning_rate": 3e-6, "optimizer.schedule": "cosine", "optimizer.warmup": 0.1,
    "optimizer.final": 0.0, "optimizer.b1": 0.9, "optimizer.b2": 0.99,
    "optimizer.weight_decay": 0.1, "optimizer.clip_norm": 0.1, "sampling.temperature": 0.9,
    "sampling.top_k": 50, "sampling.top_p": 1.0, "loss.kl_coef": 0.08,
}  # fmt: skip
TUNIX = {  # google-tunix 0.1
    "loss.clip_low": 0.2, "loss.clip_high": 0.2, "loss.eps": 1e-4, "loss.aggregation": "token",
    "loss.kl": "k3", "loss.kl_in": "loss", "loss.baseline": "group", "loss.scale": "group",
    "reference": "start", "epochs": 1, "minibatches": 1,
}  # fmt: skip
LORA64 = {"lora.rank": 64, "lora.alpha": 64.0, "lora.targets": "q|k|v|o|gate|up|down"}


def of(stage: str, *tables: dict) -> dict:
    """The fields of these tables, of a stage."""
    return {f"stages.{stage}.{field}": x for table in tables for field, x in table.items()}


NUMBERS = {  # what systems.md and the sources themselves say
    ("efficiency_gemma3_1b", ""): GEMMA3 | of("grpo", OF_DEMO, TUNIX) | {
        "mesh.fsdp": 1, "mesh.tp": 4, f"{G}lora.rank": 32, f"{G}lora.alpha": 32.0,
        f"{G}prompts": 2, f"{G}group": 4, f"{G}iterations": 3737, f"{G}max_new_tokens": 512,
        f"{G}optimizer.schedule_updates": 3738,
    },
    ("full_sft_gemma3_1b", ""): GEMMA3 | {
        "model.param_dtype": "bfloat16", "mesh.fsdp": 8, "mesh.tp": 1, "data.template": "s3",
        "data.calculator": "parentheses", f"{S}steps": 1170, f"{S}batch": 8, f"{S}lora.rank": None,
        f"{S}packing": None, f"{S}checkpoint_every": 100, "checkpoint.keep_last": 3,
        f"{S}optimizer.learning_rate": 2e-5, f"{S}optimizer.warmup": 50 / 1120,
        f"{S}optimizer.schedule_updates": 1120, f"{S}optimizer.final": 0.1,
        f"{S}optimizer.b1": 0.9, f"{S}optimizer.b2": 0.999, f"{S}optimizer.eps": 1e-8,
        f"{S}optimizer.weight_decay": 0.01, f"{S}optimizer.clip_norm": 1.0,
        "data.max_prompt": 512, f"{S}max_target": 1536,  # 2048
        "stages.sampled.greedy": False, "stages.sampled.samples": 1, "stages.sampled.ks": (1,),
        "stages.sampled.sampling.temperature": 0.7, "stages.sampled.sampling.top_k": 40,
        "stages.sampled.max_new_tokens": 512, "stages.sampled.examples": None,
    },
    ("full_sft_gemma3_1b", "better"): {
        "data.calculator": "removed", f"{S}packing": 768, "data.strip_commas": True,
        "model.param_dtype": "float32",
    },
    ("grpo_gemma2_2b", ""): GEMMA2 | of("grpo", OF_DEMO, TUNIX, LORA64) | {
        "mesh.fsdp": 1, "mesh.tp": 4, f"{G}prompts": 2, f"{G}group": 4, f"{G}iterations": 3737,
        f"{G}max_new_tokens": 512, "data.template": "s1_kaggle", "data.max_prompt": 256,
    },
    ("trajectory_gemma2_2b", ""): GEMMA2 | of("grpo", TUNIX) | {
        f"{G}prompts": 2, f"{G}group": 2, f"{G}iterations": 2500, f"{G}max_new_tokens": 768,
        f"{G}sampling.temperature": 0.9, f"{G}sampling.top_k": 0, f"{G}sampling.top_p": 1.0,
        f"{G}loss.kl_coef": 0.08, f"{G}lora.rank": 64, f"{G}lora.alpha": 64.0,
        f"{G}lora.targets": "q|k|v|gate|up|down", f"{G}optimizer.learning_rate": 5e-5,
        f"{G}optimizer.schedule": "constant", f"{G}optimizer.warmup": 0.0,
        f"{G}optimizer.final": None, f"{G}optimizer.b2": 0.999,
        f"{G}optimizer.weight_decay": 1e-4, f"{G}optimizer.clip_norm": None,
        "data.template": "plain",
    },
    ("trajectory_gemma2_2b", "better"): {f"{G}group": 8},
    ("hybrid_gemma3_1b", ""): GEMMA3 | of("grpo", OF_DEMO, TUNIX, LORA64) | {
        f"{S}steps": 2802, f"{S}batch": 8, "data.calculator": "removed", f"{G}prompts": 4,
        f"{G}iterations": 3736, "stages.votes.samples": 5, "stages.votes.ks": (1, 5),
        "pipeline": ("sft", "grpo", "votes"),
    },
    ("hybrid_gemma3_1b", "better"): {"stages.votes.ks": (1, 5, 16), "stages.votes.samples": 16},
    ("svamp_gemma3_1b", ""): GEMMA3 | of("grpo", {**OF_DEMO, "loss.kl_coef": 0.04}, TUNIX) | {
        f"{G}group": 4, f"{G}iterations": 2000, f"{G}curriculum.order": "sorted",
        f"{G}curriculum.by": "operations",
    },
    ("ideae_gemma2_2b", ""): GEMMA2 | {
        "pipeline": ("sft", "grpo", "greedy"), f"{G}curriculum.order": "promoted",
    },
    ("sft_dpo_grpo_gemma2_2b", ""):
        GEMMA2 | of("math", OF_DEMO, TUNIX, LORA64) | of("extra", OF_DEMO, TUNIX, LORA64)
        | of("sft", LORA64) | of("dpo", LORA64) | {
        "pipeline": ("sft", "dpo", "math", "extra", "greedy"), f"{S}steps": 284, f"{S}batch": 32,
        f"{S}microbatches": 16, f"{S}optimizer.learning_rate": 2e-5, "stages.dpo.loss.beta": 0.2,
        "stages.dpo.loss.preset": "dpo", "stages.dpo.batch": 32,
        "stages.dpo.steps": 181, "stages.dpo.optimizer.learning_rate": 3e-6,
        "stages.dpo.reference": "start", "stages.math.iterations": 1125,
        "stages.math.prompts": 4, "stages.math.group": 4, "stages.extra.iterations": 625,
        f"{S}max_target": 1280, "stages.greedy.examples": 478,
    },
    ("rlpr_gemma2_2b", ""): GEMMA2 | of("grpo", TUNIX) | {
        **{
            f"stages.{name}.{field}": x
            for name, rate, tokens in (("long", 5e-5, 2048), ("short", 1e-5, 1280))
            for field, x in {"optimizer.learning_rate": rate, "max_target": tokens}.items()
        },
        **{
            f"stages.{name}.lora.{field}": x
            for name in ("long", "short", "grpo")
            for field, x in {"rank": 32, "alpha": 64.0}.items()
        },
        f"{G}sampling.temperature": 0.6, f"{G}loss.kl_coef": 0.08,
        f"{G}optimizer.learning_rate": 1e-6, f"{G}rewards.correct_answer.domains": ("math",),
        f"{G}rewards.reference_probability.domains": ("others",), "data.of": ("math", "others"),
    },
    ("relay_gemma2_2b", ""): GEMMA2 | {
        f"stages.{name}.{field}": x
        for name in ("first", "second", "third")
        for field, x in {
            **TUNIX, "reference": "base", "epochs": 10, "prompts": 1, "group": 8,
            "lora.rank": None, "loss.kl_coef": 0.04, "sampling.temperature": 0.7,
            "sampling.top_k": 40, "max_new_tokens": 2048, "optimizer.learning_rate": 3e-6,
            "optimizer.final": 0.1, "optimizer.weight_decay": 0.01, "optimizer.clip_norm": 1.0,
            "iterations": 500 if name == "first" else 1000,
        }.items()
    } | {
        "mesh.fsdp": 2, "mesh.tp": 4, "data.max_prompt": 1024, "stages.vote.samples": 5,
        "stages.vote.ks": (1, 5), "stages.second.optimizer.warmup": 50 / 10_000,
    },
    ("relay_gemma2_2b", "notebook"): {
        "stages.second.iterations": 500, "stages.third.iterations": 500,
        "stages.third.data": "third",
    },
}  # fmt: skip
DEMO = {
    "demo_exact_format": (1.0, 0.0, 3.0),
    "demo_approximate_format": (1.0, -2.0, 2.0),
    "demo_answer": (1.0, -1.0, 3.0),
    "demo_numbers": (1.0, 0.0, 1.5),
}
REWARDS = {  # weight and range
    ("efficiency_gemma3_1b", "grpo"): DEMO,
    ("grpo_gemma2_2b", "grpo"): DEMO,
    ("trajectory_gemma2_2b", "grpo"): {"trajectory": (1.0, 0.0, 2.1)},
    ("hybrid_gemma3_1b", "grpo"): {"hybrid": (1.0, 0.0, 2.6)},
    ("svamp_gemma3_1b", "grpo"): {
        "demo_exact_format": (1.0, 0.0, 3.0),
        "demo_approximate_format": (1.0, -2.0, 2.0),
        "svamp_answer": (1.0, -1.0, 3.0),
        "svamp_number": (1.0, 0.0, 2.0),
        "svamp_connectives": (1.0, 0.0, 1.0),
        "svamp_length": (1.0, 0.0, 1.0),
        "svamp_algebra": (1.0, 0.0, 1.2),
    },
    ("sft_dpo_grpo_gemma2_2b", "math"): DEMO,
    ("sft_dpo_grpo_gemma2_2b", "extra"): {
        "strict_format": (0.4, 0.0, 1.0),
        "correct_answer": (0.4, 0.0, 1.0),
        "length": (0.1, 0.0, 1.0),
        "demo_exact_format": (pytest.approx(1 / 30), 0.0, 3.0),
    },
    ("rlpr_gemma2_2b", "grpo"): {
        "tag_format": (0.2, 0.0, 1.0),
        "correct_answer": (1.0, 0.0, 1.0),
        "reference_probability": (1.0, 0.0, 1.0),
    },
    **{
        ("relay_gemma2_2b", name): {"relay": (1.0, -15.0, 30.0)}
        for name in ("first", "second", "third")
    },
}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def config_of(name: str, variant: str) -> dict:
    return importlib.import_module(f"configs.{name}").get_config(variant).to_dict()


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_nothing_is_wrong(name, variant):
    config = config_of(name, variant)
    assert problems(config, STAGES) == []
    kinds = [config["stages"][stage]["kind"] for stage in config["pipeline"]]
    assert kinds[-1] == "evaluate"
    assert sorted(config["pipeline"]) == sorted(config["stages"])  # none is idle


@pytest.mark.parametrize(("name", "variant"), NUMBERS)
def test_every_number_that_is_known(name, variant):
    found = flat(with_presets(config_of(name, variant)))
    wanted = NUMBERS[name, variant]
    assert {field: found[field] for field in wanted} == wanted


@pytest.mark.parametrize(("name", "stage"), REWARDS)
def test_rewards_as_published(name, stage):
    entries = config_of(name, "")["stages"][stage]["rewards"]
    found = {reward: (e["weight"], e["low"], e["high"]) for reward, e in entries.items()}
    assert found == REWARDS[name, stage]
    assert all(entry["gate"] is None for entry in entries.values())


def grpo_stages(config: dict) -> dict[str, dict]:
    return {name: s for name, s in config["stages"].items() if s["kind"] == "grpo"}


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "full_sft_gemma3_1b"])
def test_a_sibling_pays_for_right_answers_and_hears_of_numbers(name):
    """No wrong answer of the best looks is worth a right one of theirs, but for S5's 60 to 40."""
    config, was = config_of(name, "better"), config_of(name, "")
    assert config["data"]["strip_commas"]
    for stage, grpo in grpo_stages(config).items():
        assert grpo["group"] == 8 and grpo["dynamic_sampling"] == "drop"
        assert grpo["optimizer"]["schedule_updates"] is None
        rewards = grpo["rewards"]
        assert rewards != was["stages"][stage]["rewards"]
        if "correct_answer" in rewards:
            right = rewards["correct_answer"]["weight"]
            others = sum(
                e["weight"]
                for f, e in rewards.items()
                if f != "correct_answer"
                and e["domains"] in ((), rewards["correct_answer"]["domains"])
            )
            assert right > others
        else:
            assert {"trajectory_steps", "hybrid_steps"} & rewards.keys()


@pytest.mark.parametrize(("name", "variant"), [c for c in CASES if c[1].endswith("tiny")])
def test_a_rehearsal_is_the_same_in_small(name, variant):
    """Nothing to download, one device, and all that the system is about."""
    tiny = config_of(name, variant)
    full = config_of(name, variant.removesuffix("tiny").removesuffix(","))
    assert tiny["model"]["path"] is None and tiny["mesh"] == {"fsdp": 1, "tp": 1}
    family = full["model"]["size"].partition("_")[0]
    assert SIZES[tiny["model"]["size"]].family == family
    sections = [tiny["data"], *tiny["datasets"].values()]
    assert {data["source"] for data in sections} <= {"arithmetic", "mixture"}
    assert not any(data[part] for data in sections for part in ("train", "validation", "test"))
    made = {"sft", "more_sft"} | ({"pairs"} if "preferences" in full["datasets"] else set())
    assert [stage for stage in tiny["pipeline"] if stage in full["pipeline"]] == [*full["pipeline"]]
    assert set(tiny["pipeline"]) - set(full["pipeline"]) <= made
    for stage in full["pipeline"]:
        small, own = tiny["stages"][stage], full["stages"][stage]
        if "optimizer" in own:
            changed = {"learning_rate", "schedule_updates"}
            for field in own["optimizer"].keys() - changed:
                assert small["optimizer"][field] == own["optimizer"][field]
            assert small["lora"] == (
                {**own["lora"], "rank": None} if own["kind"] == "sft" else own["lora"]
            )
        for field in ("loss", "rewards", "group", "epochs", "dynamic_sampling", "kind"):
            assert small.get(field) == own.get(field)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("variant", ["bettr", "tiny,small", "tiny,tiny"])
def test_unknown_variants(name, variant):
    module = importlib.import_module(f"configs.{name}")
    with pytest.raises(ValueError, match=f"variant '{variant}' of configs/{name}.py: expected"):
        module.get_config(variant)


def test_variants_that_exclude_each_other():
    for name, variant in (("efficiency_gemma3_1b", "r8,r16"), ("efficiency_gemma3_1b", "p1,p2"),
                          ("relay_gemma2_2b", "notebook,better")):  # fmt: skip
        with pytest.raises(ValueError, match="expected one"):
            config_of(name, variant)


def test_the_grid_of_the_efficiency_build():
    """Ranks by prompts, each one epoch of 7473, all else the demo's."""
    grid = efficiency_gemma3_1b.grid()
    assert len(set(grid)) == 16
    seen = set()
    for variant in grid:
        grpo = config_of("efficiency_gemma3_1b", variant)["stages"]["grpo"]
        assert grpo["lora"]["alpha"] == grpo["lora"]["rank"]
        assert 7473 <= grpo["iterations"] * grpo["prompts"] < 7473 + grpo["prompts"]
        seen.add((grpo["lora"]["rank"], grpo["prompts"]))
    assert seen == {(r, p) for r in (8, 16, 32, 64) for p in (1, 2, 4, 8)}


@pytest.mark.parametrize(("name", "differs"), [
    ("efficiency_gemma3_1b", {"lora.rank", "lora.alpha"}), ("grpo_gemma2_2b", set()),
])  # fmt: skip
def test_two_systems_are_the_demo_but_for_this(name, differs):
    was, now = flat(demo.get_config("").to_dict()), flat(config_of(name, ""))
    changed = {field for field in was.keys() | now.keys() if was.get(field) != now.get(field)}
    of_model = {"model.path", "model.size"} if name == "grpo_gemma2_2b" else set()
    assert changed == {f"{G}{x}" for x in differs | {"prompts", "iterations"}} | of_model


def test_gemma_2_stops_at_the_end_of_its_turn():
    """Ids 1 and 107, which the notebooks did not set; its prompts fit as the demo's do."""
    tok = tokenizer("gemma2")
    assert tok.family == "gemma2" and set(tok.stop_ids) == {1, 107}
    ids = prompt_ids(tok, {"question": "1+1?", "answer": "2"}, TEMPLATES["s1_kaggle"])
    assert ids[0] == 2 and ids.count(107) == 1 and ids[-2] == 106


def test_replay_is_one_to_one():
    """A session of a thousand draws has 500 old ones, whatever there is of these."""
    config = config_of("relay_gemma2_2b", "tiny")
    for name, sizes in (("second_and_old", (60, 60)), ("third_and_old", (60, 120))):
        new, old = config["datasets"][name]["of"]
        assert new == name.removesuffix("_and_old") and old in ("data", "before")
        sections = {"data": config["data"], **config["datasets"]}
        sections = {key: dict(section) for key, section in sections.items()}
        sections[new]["train_examples"], sections[old]["train_examples"] = sizes
        from_each = order_of(sections, name)
        assert abs(from_each[new] - from_each[old]) <= 2


def order_of(sections: dict, name: str) -> dict[str, int]:
    """How often each dataset of a mixture is drawn from in its first epoch."""
    data = load_datasets(sections, seed=0)[name]
    place_of = data.order(data.train, 0)
    drawn = [data.train[place_of(n)]["domain"] for n in range(len(data.train))]
    return {domain: drawn.count(domain) for domain in set(drawn)}


def test_the_scaffold_that_is_taught_is_the_one_that_is_paid():
    """On GSM8K's own solutions, and on the rehearsal's."""
    config = config_of("ideae_gemma2_2b", "")
    headings = config["stages"]["grpo"]["rewards"]["scaffold"]["options"]["headings"]
    data = {**config["data"], **{part: str(real_path(part)) for part in ("train", "test")}}
    small = config_of("ideae_gemma2_2b", "tiny")["data"]
    for section in (data, {**small, "train_examples": 50}):
        loaded = load_dataset(section, 0)
        assert loaded.template["target"] == TEMPLATES["sections"]["target"]
        for example in (e for e in loaded.train if e["reasoning"]):
            text = target_text(example, loaded.template)
            assert scaffold(example, text, headings=headings) == 1.0
