"""The GRPO demo's config: every number of both versions, and the pipeline on a tiny model."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import grpo_demo_gemma3_1b as demo
from grpo.checks.problems import leaves, problems
from grpo.data.templates import prompt_ids, prompt_text
from grpo.pipeline import FINISHED, STAGES, run_config, with_presets
from grpo.reporting.progress import Progress
from grpo.rollout import generate
from grpo.runs.run import Stop
from grpo.runs.setup import set_up
from grpo.storage.journal import read_journal
from grpo.tools.preflight import preflight
from grpo.training import train_step
from grpo.training.optimizer import learning_rate
from models.config import SIZES
from models.gemma import init_params
from models.loading import save_hf
from models.policy import Policy
from tests.gsm8k import real_path
from tests.references.chat_tokenizers import tokenizer
from tests.test_data_templates import S1_KAGGLE, S1_REPO

TABLE = {  # field: Kaggle's notebook, Tunix's
    "seed": (42, 42),
    "model.path": ("google/gemma-3-1b-it", "google/gemma-3-1b-it"),
    "model.size": ("gemma3_1b", "gemma3_1b"),
    "model.dtype": ("bfloat16", "float32"),
    "model.param_dtype": ("bfloat16", "float32"),
    "mesh.fsdp": (1, 1),
    "mesh.tp": (4, 4),
    "data.source": ("gsm8k", "gsm8k"),
    "data.train": ("data/gsm8k/train.jsonl", "data/gsm8k/train.jsonl"),
    "data.test": ("data/gsm8k/test.jsonl", "data/gsm8k/test.jsonl"),
    "data.strip_commas": (False, False),
    "data.template": ("s1_kaggle", "s1_repo"),
    "data.max_prompt": (256, 256),
    "data.buckets": ((256,), (256,)),
    "checkpoint.keep_last": (4, 4),
    "pipeline": (("grpo", "greedy", "standard", "liberal"),) * 2,
    "stages.grpo.iterations": (1869, 3364),
    "stages.grpo.prompts": (4, 1),
    "stages.grpo.group": (4, 2),
    "stages.grpo.max_new_tokens": (512, 768),
    "stages.grpo.sampling.temperature": (0.9, 0.9),
    "stages.grpo.sampling.top_k": (50, 50),
    "stages.grpo.sampling.top_p": (1.0, 1.0),
    "stages.grpo.sampling.min_p": (0.0, 0.0),
    "stages.grpo.epochs": (1, 1),
    "stages.grpo.minibatches": (1, 1),
    "stages.grpo.microbatches": (1, 1),
    "stages.grpo.dynamic_sampling": ("off", "off"),
    "stages.grpo.reference": ("start", "start"),
    "stages.grpo.checkpoint_every": (500, 500),
    "stages.grpo.evaluate_every": (0, 0),
    "stages.grpo.lora.rank": (64, 64),
    "stages.grpo.lora.alpha": (64.0, 64.0),
    "stages.grpo.lora.targets": ("q|k|v|o|gate|up|down",) * 2,
    "stages.grpo.lora.rslora": (False, False),
    "stages.grpo.loss.baseline": ("group", "group"),
    "stages.grpo.loss.scale": ("group", "group"),
    "stages.grpo.loss.eps": (1e-4, 1e-4),
    "stages.grpo.loss.ratio": ("token", "token"),
    "stages.grpo.loss.surrogate": ("clip", "clip"),
    "stages.grpo.loss.clip_low": (0.2, 0.2),
    "stages.grpo.loss.clip_high": (0.2, 0.2),
    "stages.grpo.loss.aggregation": ("token", "token"),
    "stages.grpo.loss.kl": ("k3", "k3"),
    "stages.grpo.loss.kl_in": ("loss", "loss"),
    "stages.grpo.loss.kl_coef": (0.08, 0.08),
    "stages.grpo.loss.entropy_coef": (0.0, 0.0),
    "stages.grpo.optimizer.learning_rate": (3e-6, 3e-6),
    "stages.grpo.optimizer.schedule": ("cosine", "cosine"),
    "stages.grpo.optimizer.warmup": (0.1, 0.1),
    "stages.grpo.optimizer.final": (0.0, 0.0),
    "stages.grpo.optimizer.schedule_updates": (3738, None),
    "stages.grpo.optimizer.b1": (0.9, 0.9),
    "stages.grpo.optimizer.b2": (0.99, 0.99),
    "stages.grpo.optimizer.eps": (1e-8, 1e-8),
    "stages.grpo.optimizer.weight_decay": (0.1, 0.1),
    "stages.grpo.optimizer.decayed": (".*", ".*"),
    "stages.grpo.optimizer.clip_norm": (0.1, 0.1),
    **{
        f"stages.{name}.{field}": value
        for name, own in (
            ("greedy", {"greedy": (True, True), "samples": (0, 0)}),
            ("standard", {"sampling.temperature": (0.7, 0.7), "sampling.top_k": (50, 50),
                          "sampling.top_p": (0.95, 0.95), "greedy": (False, False)}),
            ("liberal", {"sampling.temperature": (0.85, 0.85), "sampling.top_k": (2000, 2000),
                         "sampling.top_p": (1.0, 1.0), "greedy": (False, False)}),
        )
        for field, value in {
            "policies": (("base", "grpo"),) * 2, "examples": (400, 64),
            "max_new_tokens": (768, 768), **own,
        }.items()
    },
}  # fmt: skip
REWARDS = {  # weight and range
    "demo_exact_format": (1.0, 0.0, 3.0),
    "demo_approximate_format": (1.0, -2.0, 2.0),
    "demo_answer": (1.0, -1.0, 3.0),
    "demo_numbers": (1.0, 0.0, 1.5),
}
FIVE = {"demo_approximate_format_5": (1.0, -2.5, 2.5)}


def config_of(variant: str) -> dict:
    return demo.get_config(variant).to_dict()


def flat(config: dict) -> dict:
    """Dotted path -> value, down to the last."""
    found = {}
    for path, value in leaves(config):
        if isinstance(value, dict):
            found |= {f"{path}.{inner}": x for inner, x in flat(value).items()}
        else:
            found[path] = value
    return found


@pytest.mark.parametrize(("variant", "column"), [("", 0), ("kaggle", 0), ("repo", 1)])
def test_every_number(variant, column):
    config = config_of(variant)
    assert problems(config, STAGES) == []
    found = flat(with_presets(config))
    assert {field: found[field] for field in TABLE} == {f: v[column] for f, v in TABLE.items()}


def test_rewards():
    def table(variant: str) -> dict:
        rewards = config_of(variant)["stages"]["grpo"]["rewards"]
        assert all(entry["gate"] is None for entry in rewards.values())
        return {name: (e["weight"], e["low"], e["high"]) for name, e in rewards.items()}

    repo = {name: entry for name, entry in REWARDS.items() if name != "demo_approximate_format"}
    assert table("kaggle") == REWARDS and table("repo") == repo | FIVE
    lows = [sum(entry[i] for entry in REWARDS.values()) for i in (1, 2)]
    assert lows == [-3.0, 9.5]  # -2 and -1 exclude each other: the least total is -2


def test_kaggle_stops_at_half_the_schedule():
    """As the notebook ran: warm-up over a fifth of its updates, half the peak at the end."""
    stage = config_of("kaggle")["stages"]["grpo"]
    optimizer = stage["optimizer"]
    rate = learning_rate(
        peak=optimizer["learning_rate"],
        total_updates=optimizer["schedule_updates"],
        **{name: optimizer[name] for name in ("schedule", "warmup", "final")},
    )
    rates = [np.asarray(rate(n)).item() for n in range(stage["iterations"])]
    assert np.argmax(rates) == 373 and max(rates) == pytest.approx(3e-6)
    # cos at (1868 - 374) / 3364 of its way
    assert rates[-1] == pytest.approx(3e-6 * (1 + np.cos(np.pi * 1494 / 3364)) / 2, rel=1e-4)
    assert 0.55 < rates[-1] / 3e-6 < 0.6


@pytest.mark.parametrize("variant", ["tiny", "repo,tiny", "kaggle,tiny"])
def test_the_rehearsal_differs_in_size_only(variant):
    config, own = config_of(variant), config_of(variant.removesuffix("tiny").removesuffix(","))
    assert problems(config, STAGES) == []
    tiny, full = flat(config), flat(own)
    changed = {f for f in full if tiny[f] != full[f]}
    sizes = {f"stages.{name}.{f}" for name in ("greedy", "standard", "liberal")
             for f in ("policies", "examples", "batch", "max_new_tokens")}  # fmt: skip
    sizes |= {f"stages.grpo.{f}" for f in ("iterations", "max_new_tokens", "checkpoint_every",
                                           "optimizer.schedule_updates")}  # fmt: skip
    sizes |= {"mesh.tp", "pipeline"}
    assert {f for f in changed if not f.startswith(("model.", "data."))} <= sizes
    assert tiny["data.template"] == full["data.template"]
    grpo = config["stages"]["grpo"]
    if "repo" not in variant:
        assert grpo["optimizer"]["schedule_updates"] == 2 * grpo["iterations"]


@pytest.mark.parametrize("variant", ["kagle", "kaggle,repo", "tiny,small"])
def test_unknown_variants(variant):
    with pytest.raises(ValueError, match=f"variant '{variant}' .* expected kaggle or repo"):
        demo.get_config(variant)


def shapes_in(tree) -> list:
    return [(x.shape, str(x.dtype)) for x in jax.tree.leaves(tree)]


def told_of(monkeypatch, module, log: list) -> None:
    """Keeps the shapes of what a module's train step is made for and called with."""
    make = module.make_train_step

    def spy(loss, optimizer, *, microbatches, state, frozen, rows, mesh, group):
        step = make(
            loss, optimizer, microbatches=microbatches, state=state, frozen=frozen, rows=rows,
            mesh=mesh, group=group,
        )  # fmt: skip

        def call(state, frozen, batch):
            log.append([microbatches, rows, *map(shapes_in, (state, frozen, batch))])
            return step(state, frozen, batch)

        def lower(state, frozen, batch):
            log.append([microbatches, rows, *map(shapes_in, (state, frozen, batch))])
            return step.lower(state, frozen, batch)

        call.lower = lower
        return call

    monkeypatch.setattr(module, "make_train_step", spy)


def rollouts_of(monkeypatch, module, log: list) -> None:
    """Keeps the modules and shapes of a module's rollouts."""
    rollout = module.rollout

    def keep(module, weights, ids, mask, key, sampling, stop_ids, *, group, max_new_tokens):
        log.append([module, *map(shapes_in, (weights, ids, mask, key, stop_ids)), group,
                    max_new_tokens])  # fmt: skip

    class Spy:
        def __call__(self, *args, **kwargs):
            keep(*args, **kwargs)
            return rollout(*args, **kwargs)

        def lower(self, *args, **kwargs):
            keep(*args, **kwargs)

        def eval_shape(self, *args, **kwargs):
            return rollout.eval_shape(*args, **kwargs)

    monkeypatch.setattr(module, "rollout", Spy())


def test_the_rehearsal_runs(tmp_path, monkeypatch):
    """What a run leaves behind, and that a preflight sees the programs that it runs."""
    config = demo.get_config("tiny")
    config.stages.sft.update(steps=12, batch=4)
    config.stages.grpo.update(iterations=2, checkpoint_every=1)
    config.stages.greedy.update(examples=4, batch=4, policies=("grpo",))
    config.pipeline = ("sft", "grpo", "greedy")
    config = config.to_dict()
    ran, seen, wrote, planned = [], [], [], []
    told_of(monkeypatch, train_step, ran)
    rollouts_of(monkeypatch, generate, wrote)
    assert run_config(config, tmp_path) == FINISHED

    assert (tmp_path / "DONE").exists() and (tmp_path / "summary.md").exists()
    rows = read_journal(tmp_path / "metrics.jsonl")
    updates = [row for row in rows if row["stage"] == "grpo"]
    assert [row["step"] for row in updates] == [1, 2]
    for row in updates:
        assert {f"reward/{name}/mean" for name in REWARDS} <= row.keys()
        assert not any(row[f"reward/{name}/failed"] for name in REWARDS)
        assert np.isfinite(row["loss"]) and "kl" in row and row["skipped"] == 0
    got = json.loads((tmp_path / "evaluations" / "greedy.json").read_text())
    assert set(got) == {"grpo"}
    for name in ("accuracy/demo", "accuracy/partial", "format/demo"):  # what the demo reports
        assert name in got["grpo"]
    completion = read_journal(tmp_path / "rollouts.jsonl")[0]
    assert completion["prompt"].startswith("<start_of_turn>user\nYou are given a problem. Think")
    assert completion["prompt"].endswith("<start_of_turn>model")
    assert set(completion["reward"]) == set(REWARDS)

    # The checkpoint holds the adapter and its moments: 3 x 4 bytes a number, and no weights.
    arrays = tmp_path / "checkpoints" / "grpo" / "00000002" / "arrays"
    stored = sum(file.stat().st_size for file in arrays.rglob("*") if file.is_file())
    numbers = sum(np.prod(shape) for shape, _ in ran[-1][2]) // 3
    assert numbers == pytest.approx(264_192, abs=10)
    assert stored < 1.1 * 12 * numbers
    names = " ".join(file.read_text() for file in arrays.rglob("_METADATA"))
    assert "embedder" not in names and "table" not in names and "'w'" not in names

    monkeypatch.undo()
    told_of(monkeypatch, train_step, seen)
    rollouts_of(monkeypatch, generate, planned)
    preflight(config, STAGES)
    for done, lowered in ((ran, seen), (wrote, planned)):
        assert all(program in lowered for program in done)
        assert all(program in done for program in lowered)


GSM8K = {  # variant: prompts of more than 256 tokens
    "kaggle": (S1_KAGGLE, 1),
    "repo": (S1_REPO, 2),
}
MARIA = "Maria has 4 dimes, 4 quarters, and 7 nickels"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small model's weights beside the real tokenizer, in the Hub's form."""
    tok = tokenizer("gemma3")
    size = dataclasses.replace(SIZES["gemma3_micro"], vocab_size=tok.vocab_size, width=16)
    params = init_params(size, jax.random.key(0), jnp.bfloat16)
    return save_hf(Policy(config=size, params=params, tokenizer=tok), tmp_path_factory.mktemp("hf"))


@pytest.mark.parametrize("variant", GSM8K)
def test_real_data_with_the_real_tokenizer(variant, directory, tmp_path):
    """What a run sets up from the demo's config; only the weights are others."""
    prompt, dropped = GSM8K[variant]
    config = config_of(variant)
    config["model"]["path"] = str(directory)
    config["data"] |= {part: str(real_path(part)) for part in ("train", "test")}
    assert problems(config, STAGES) == []
    run, policies = set_up(config, tmp_path, Progress(io.StringIO(), every_s=0.0), Stop())
    data = run.datasets["data"]
    report, tok = data.report, policies.base.own_tokenizer
    assert (report["train/rows"], report["test/rows"]) == (7473, 1319)
    assert report["train/duplicates"] == report["test/duplicates"] == 0
    assert report["train/bad"] == report["test/bad"] == []
    assert [len(data.train), len(data.test)] == [7473 - dropped, 1319]
    assert report["train/kept"] == 1 - dropped / 7473 and report["test/kept"] == 1.0
    assert sum("," in example["answer"] for example in data.train) == 79
    assert sum("," in example["answer"] for example in data.test) == 14

    (maria,) = [e for e in (*data.train, *data.test) if e["question"].startswith(MARIA)]
    assert prompt_text(maria, data.template) == prompt
    ids = prompt_ids(tok, maria, data.template)
    assert ids[0] == tok.bos_id == 2 and ids.count(2) == 1 and tok.decode(ids[1:]) == prompt
    assert set(tok.stop_ids) == {1, 106}
