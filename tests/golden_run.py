"""A small run whose stages between them use most of what a stage can do, and what they left.

    sft -> clip        all parameters, two epochs of two minibatches, ratios that clip
        -> adapter     a fresh adapter, held to the base
           -> another  another adapter; REINFORCE with the KL in the reward
           -> again    the same adapter, held to where it began
              -> merged      all parameters again; new prompts in place of groups that teach nothing
              -> packed      supervised training of the adapter, several examples to a row
        -> left_out    groups left out, a correction, an entropy bonus, a schedule with decay
    evaluate           three of these, greedily and from samples

`record` is the one place that touches the project: it launches the run, and notes what the sampler
drew (given), and which parameters every stage left (to be compared), as lists and float64 arrays.
"""

import contextlib
import functools
import io
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs import base
from configs.base import sampling
from grpo.data.templates import prompt_ids, target_ids
from grpo.rewards.batch import each
from grpo.rewards.table import REWARDS
from grpo.rollout.generate import Sampler
from grpo.storage.arrays import checkpointer, read_arrays
from tests.small_run import launch, opened, rows, small, small_sft

P, G, C = 4, 3, 6  # prompts, completions of each, tokens of each
SEED = 3
EVALUATED_AT = 0.8  # a temperature that no stage of training has
# The first steps of AdamW are g / (|g| + eps): with a small eps, the rounding of a gradient that is
# almost 0 would decide on whole steps. With one as large as most gradients here, float32 is as near
# to float64 after an update as it was before, and the moments still matter.
OPTIMIZER = {"learning_rate": 7e-3, "eps": 1e-2, "clip_norm": None, "warmup": 0.0}


# Rewards: sixteenths, which float32 holds exactly, so that no difference of two is made of rounding


def code(question: str, completion: str) -> int:
    return zlib.crc32(f"{question} -> {completion}".encode("utf-8", "surrogatepass"))


def hashed(question: str, completion: str) -> float:
    return code(question, completion) % 16 / 16


def half(question: str, completion: str) -> float:
    return code(question, completion) // 16 % 3 / 2


def length(question: str, completion: str) -> float:
    return min(len(completion), 16) / 16


def shy(question: str, completion: str) -> float:
    """No number for one completion in five."""
    if code(question, completion) % 5 == 0:
        return math.nan
    return code(question, completion) // 256 % 16 / 16


def asked(question: str, completion: str) -> float:
    """1 for two questions in three."""
    return float(code(question, "") % 3 > 0)


def picky(question: str, completion: str) -> float:
    """Tells the completions of these questions apart, those of the others not."""
    return hashed(question, completion) if asked(question, completion) else 0.5


FORMULAS: dict[str, Callable[[str, str], float]] = {
    f.__name__: f for f in (hashed, half, length, shy, asked, picky)
}


# The configs: every option of the loss is said here, so that no default and no preset is

LOSS = {
    "baseline": "group", "scale": "group", "eps": 1e-6, "decoupled": False,
    "overlong_buffer": None, "overlong_penalty": None, "mask_truncated": False, "teacher_coef": 0.0,
    "ratio": "token", "surrogate": "clip", "clip_low": 0.2, "clip_high": 0.2,
    "aggregation": "sequence", "kl": "k3", "kl_in": "loss", "kl_coef": 0.1, "entropy_coef": 0.0,
    "correction": None, "correction_level": None, "correction_cap": None, "off_policy_limit": None,
}  # fmt: skip


def stage(rewards: dict[str, tuple[float, str | None]], **fields) -> base.ConfigDict:
    """A GRPO stage; a field that is a dict changes fields below it."""
    got = base.grpo()
    got.update(iterations=2, prompts=P, group=G, max_new_tokens=C, max_abstained=1.0)
    got.update(evaluate_every=0, checkpoint_every=1, entropy=False)
    got.optimizer.update(OPTIMIZER)
    got.loss.update(LOSS)
    for name, value in fields.items():
        got[name].update(value) if isinstance(value, dict) else got.update({name: value})
    for name, (weight, gate) in rewards.items():
        got.rewards[name] = base.reward(weight, 0.0, 1.0, gate)
    return got


def supervised(**fields) -> base.ConfigDict:
    """An SFT stage."""
    got = small_sft()
    got.update(evaluate_every=0, checkpoint_every=1)
    got.optimizer.update(OPTIMIZER)
    for name, value in fields.items():
        got[name].update(value) if isinstance(value, dict) else got.update({name: value})
    return got


def golden(names: Collection[str]) -> base.ConfigDict:
    """The run of some stages, and of those that they go on from."""
    run = small()
    run.seed = SEED
    run.data.update(levels=(1, 2), worked=0.0, train_examples=20, test_examples=6)
    run.checkpoint.keep_last = 20
    run.evaluation.examples = 5  # in batches of two, so that the last is filled up
    stages = all_stages()
    needed = set(names)
    for name in reversed(ORDER):
        if name in needed:
            needed |= set(NEEDS[name])
    run.pipeline = tuple(name for name in ORDER if name in needed)
    for name in run.pipeline:
        run.stages[name] = stages[name]
    return run


ORDER = (
    "sft", "clip", "adapter", "again", "merged", "left_out", "another", "taught", "packed",
    "evaluate",
)  # fmt: skip
NEEDS = {  # `again` stands between `another` and the stage that it goes on from
    "sft": (), "clip": ("sft",), "adapter": ("sft",), "again": ("adapter",), "merged": ("again",),
    "left_out": ("sft",), "another": ("adapter", "again"), "packed": ("again",),
    "taught": ("sft", "adapter"),
    "evaluate": ("sft", "clip", "again"),
}  # fmt: skip
GRPO = ("clip", "adapter", "again", "merged", "left_out", "another", "taught")
SFT = ("sft", "packed")


def all_stages() -> dict[str, base.ConfigDict]:
    """Every stage. Some have the same loss and optimizer, so that they share a program."""
    lora = {"rank": 2, "alpha": 4.0, "targets": "q|v"}
    clip = {
        "microbatches": 2,
        "minibatches": 2,
        "sampling": {"temperature": 0.7},
        "loss": {"aggregation": "token", "clip_low": 0.05, "clip_high": 0.1},
    }
    adapter = {
        "lora": lora,
        "sampling": {"temperature": 1.3},
        "epochs": 2,
        "loss": {"kl": "k2", "ratio": "sequence", "clip_low": 0.05, "clip_high": 0.1},
        "optimizer": {"learning_rate": 0.1, "warmup": 0.5, "schedule": "cosine", "final": 0.5},
    }
    evaluate = base.evaluate()
    evaluate.update(policies=("sft", "clip", "again"), batch=P * G, max_new_tokens=C)
    evaluate.update(greedy=False, samples=G, ks=(1, 2), sampling=sampling(EVALUATED_AT))
    return {
        "sft": supervised(
            steps=6, batch=4, microbatches=2, checkpoint_every=3,
            optimizer={
                "learning_rate": 4e-2, "clip_norm": 1.0, "warmup": 0.5, "schedule": "cosine",
                "final": 0.1,
            },
        ),
        "clip": stage(
            {"hashed": (1.0, None), "length": (0.5, "half"), "half": (0.0, None)},
            **clip, epochs=2, evaluate_every=1,
        ),
        "adapter": stage(
            {"hashed": (1.0, None), "shy": (0.5, "half"), "half": (0.0, None)},
            **adapter, start="sft", reference="base",
        ),
        "again": stage(
            {"hashed": (1.0, None)},
            **with_loss(
                adapter, baseline="batch", scale="batch", aggregation="constant",
                overlong_buffer=0.5, overlong_penalty=0.25,
            ),
        ),
        "merged": stage(
            {"picky": (1.0, None), "length": (0.5, "asked"), "asked": (0.0, None)},
            **with_loss(clip, decoupled=True, aggregation="sequence"),
            epochs=2, dynamic_sampling="refill", max_rounds=3,
        ),
        "left_out": stage(
            {"picky": (1.0, None), "shy": (0.25, None)},
            start="sft", iterations=3, dynamic_sampling="drop", microbatches=3, entropy=True,
            lora={"rank": 3, "alpha": 4.0, "targets": "k|o|up|down", "rslora": True},
            loss={
                "kl_coef": 0.0, "entropy_coef": 0.02, "off_policy_limit": 0.1,
                "correction": "cap", "correction_level": "token", "correction_cap": 1.2,
            },
            optimizer={
                "learning_rate": 0.1, "weight_decay": 0.1, "decayed": ".*/a", "clip_norm": 0.3,
                "warmup": 0.5, "schedule": "cosine", "final": 0.2,
            },
        ),
        "another": stage(
            {"hashed": (1.0, None), "half": (0.5, None)},
            start="adapter", lora={**lora, "rank": 3}, reference="base",
            loss={
                "baseline": "leave_one_out", "scale": "none", "eps": None,
                "surrogate": "reinforce", "clip_low": None, "clip_high": None,
                "mask_truncated": True, "aggregation": "constant",
                "kl": "k1", "kl_in": "reward", "kl_coef": 0.05,
            },
            optimizer={"learning_rate": 0.1},
        ),
        "taught": stage(
            {"hashed": (1.0, None), "shy": (0.5, None)},
            start="sft", teacher="adapter", lora={**lora, "rank": 3}, epochs=2,
            sampling={"temperature": 1.4},
            loss={"teacher_coef": 3.0, "clip_low": 0.02, "clip_high": 0.04, "kl_coef": 0.0},
            optimizer={"learning_rate": 0.1},
        ),
        "packed": supervised(start="again", lora=lora, steps=3, batch=2, packing=160),
        "evaluate": evaluate,
    }  # fmt: skip


def with_loss(fields: dict, **loss) -> dict:
    """The fields of a stage with some options of the loss changed."""
    return {**fields, "loss": {**fields["loss"], **loss}}


class Sampled(NamedTuple):
    """A call of the sampler: what it drew, a row of keys for each completion."""

    prompts: list[list[int]]
    completions: list[list[int]]
    truncated: list[bool]
    sample_logprob: list[np.ndarray]
    keys: list[bytes]
    temperature: float


class Left(NamedTuple):
    """What a run was given and what it left."""

    config: dict[str, Any]
    size: Any  # GemmaConfig
    examples: dict[str, list]  # train, test
    prompt: Callable[[Any], list[int]]  # example -> ids
    target: Callable[[Any], list[int]]
    decode: Callable[[list[int]], str]
    stops: tuple[int, ...]
    trained: list[Sampled]  # by sampling, in order
    evaluated: list[Sampled]
    rollouts: list[dict]  # rows of rollouts.jsonl
    metrics: list[dict]
    evaluations: list[dict]  # rows of evaluations/evaluate.jsonl
    base: dict[str, np.ndarray]
    trainable: Callable[[str, int], dict[str, np.ndarray]]  # stage, update -> arrays
    updates: Callable[[str], list[int]]  # stage -> the updates that have a checkpoint
    taken: Callable[[str, int], int]  # stage, update -> the cursor's examples
    fresh: Callable[[str], dict[str, np.ndarray]]  # stage -> its new adapter


def flat(tree) -> dict[str, np.ndarray]:
    """A tree of arrays by path, in float64."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x, np.float64)
        for path, x in leaves
    }


def staleness(shape) -> np.ndarray:
    """What the log-probabilities of a stale sampler are off by, here."""
    return np.float32(0.3 * np.sin(1.0 + 1.7 * np.arange(np.prod(shape)))).reshape(shape)


@contextlib.contextmanager
def watched(trained: list[Sampled], evaluated: list[Sampled]):
    """Notes every call of the sampler, and makes the log-probabilities it tells to training stale.

    With exact ones a correction of the sampler would be of 1.0, and nothing would show that it was
    made, nor that they were taken for the trainer's own.
    """
    sample = Sampler.sample

    def seen(self, prompts, key_B, *, sampling, group, max_new_tokens):
        got = sample(
            self, prompts, key_B, sampling=sampling, group=group, max_new_tokens=max_new_tokens
        )
        got = jax.tree.map(np.asarray, got)
        width = got.ids_BT.shape[1] - max_new_tokens  # of the prompts
        ids_BC, stop_ids = got.ids_BT[:, width:], self._stop_ids
        rows = zip(got.ids_BT, got.mask_BT, strict=True)
        stops = [[c for c, token in enumerate(ids) if token in stop_ids] for ids in ids_BC]
        ends = [at[0] + 1 if at else None for at in stops]
        here = Sampled(
            prompts=[ids[:width][mask[:width] != 0].tolist() for ids, mask in rows],
            completions=[ids[:end].tolist() for ids, end in zip(ids_BC, ends, strict=True)],
            truncated=[end is None for end in ends],
            sample_logprob=[
                np.asarray(x[:end], np.float64)
                for x, end in zip(got.sample_logprob_BC, ends, strict=True)
            ],
            keys=[key.tobytes() for key in np.asarray(jax.random.key_data(key_B))],
            temperature=sampling["temperature"],
        )
        if here.temperature in (0.0, EVALUATED_AT):
            evaluated.append(here)
            return got
        trained.append(here)
        stale = got.sample_logprob_BC + staleness(got.sample_logprob_BC.shape)
        return got._replace(sample_logprob_BC=np.where(got.completion_mask_BC, stale, 0.0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "sample", seen)
        for name, formula in FORMULAS.items():
            patch.setitem(REWARDS, name, each(functools.partial(reward, formula)))
        yield


def reward(formula: Callable[[str, str], float], example, completion: str) -> float:
    """A formula as the project wants its reward functions."""
    return formula(example["question"], completion)


def record(names: Collection[str], workdir: pathlib.Path) -> Left:
    """Runs some stages to their end."""
    config = golden(names)
    trained: list[Sampled] = []
    evaluated: list[Sampled] = []
    with watched(trained, evaluated):
        assert launch(config, workdir) == 0
        run, policies = opened(config, workdir, io.StringIO())
    data, tokenizer = run.data_of("sft"), policies.base.own_tokenizer

    def folder(stage: str, update: int) -> pathlib.Path:
        return workdir / "checkpoints" / stage / f"{update:08d}"

    def trainable(stage: str, update: int) -> dict[str, np.ndarray]:
        path = folder(stage, update) / "arrays" / "trainable"
        with checkpointer() as orbax:
            metadata: Any = orbax.metadata(path.absolute())
        there = metadata.item_metadata.tree
        return flat(
            read_arrays(path, {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in there.items()})
        )

    def taken(stage: str, update: int) -> int:
        return json.loads((folder(stage, update) / "extra.json").read_text())["extra"]["cursor"][
            "taken"
        ]

    return Left(
        config=config.to_dict(),
        size=policies.base.config,
        examples={"train": data.train, "test": data.test},
        prompt=lambda example: prompt_ids(tokenizer, example, data.template),
        target=lambda example: target_ids(tokenizer, example, data.template),
        decode=tokenizer.decode,
        stops=tokenizer.stop_ids,
        trained=trained,
        evaluated=evaluated,
        rollouts=rows(workdir, "rollouts") if (workdir / "rollouts.jsonl").exists() else [],
        metrics=rows(workdir, "metrics"),
        evaluations=(
            rows(workdir, "evaluations/evaluate") if "evaluate" in config.pipeline else []
        ),
        base=flat(policies.base.params),
        trainable=trainable,
        updates=lambda stage: sorted(int(p.name) for p in folder(stage, 0).parent.glob("0*")),
        taken=taken,
        fresh=lambda stage: flat(policies.start(stage).adapter),
    )
