"""Two small runs that between them use most of what a GRPO stage can do, and what they left.

    whole      sft -> clip, left_out, kl_in_reward                     all parameters are trained
    adapters   packed sft -> adapter, again, merged, another           an adapter, and after it

`record` is the one place that touches the project: it launches a run, and notes what the sampler
drew (given), and which parameters every stage left (to be compared). What it notes is plain lists
and float64 arrays; tests/oracle_iteration.py computes the rest again.
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

import grpo.rollout.generate
from configs import base
from configs.base import sampling
from grpo.data.templates import prompt_ids, target_ids
from grpo.rewards.compose import REWARDS
from grpo.storage.arrays import checkpointer, read_arrays
from tests.oracle_iteration import Row, Weights
from tests.small_run import launch, opened, rows, small, small_sft

P, G, C = 4, 3, 6  # prompts, completions of each, tokens of each
SEED = 3
EVALUATED_AT = 0.8  # a temperature that no stage of training has
# eps is large, as ...
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


def picky(question: str, completion: str) -> float:
    """Tells the completions of two questions in three apart."""
    return hashed(question, completion) if code(question, "") % 3 else 0.5


FORMULAS: dict[str, Callable[[str, str], float]] = {
    f.__name__: f for f in (hashed, half, length, shy, picky)
}


# The configs


def stage(rewards: dict[str, tuple[float, str | None]], **fields) -> base.ConfigDict:
    """A GRPO stage; a field that is a dict changes fields below it."""
    told = base.grpo()
    told.update(iterations=2, prompts=P, group=G, max_new_tokens=C, max_abstained=1.0)
    told.update(evaluate_every=0, checkpoint_every=1)
    told.optimizer.update(OPTIMIZER)
    for name, value in fields.items():
        told[name].update(value) if isinstance(value, dict) else told.update({name: value})
    for name, (weight, gate) in rewards.items():
        told.rewards[name] = base.reward(weight, 0.0, 1.0, gate)
    return told


def supervised(**fields) -> base.ConfigDict:
    """An SFT stage."""
    told = small_sft()
    told.update(evaluate_every=0, checkpoint_every=1)
    told.optimizer.update(OPTIMIZER)
    for name, value in fields.items():
        told[name].update(value) if isinstance(value, dict) else told.update({name: value})
    return told


def golden(names: Collection[str]) -> base.ConfigDict:
    """The run of some stages, and of those that they go on from."""
    run = small()
    run.seed = SEED
    run.data.update(levels=(1, 2), worked=0.0, test_examples=6)
    run.checkpoint.keep_last = 20
    run.evaluation.update(examples=6, batch=P, max_new_tokens=C)
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
    "sft", "clip", "adapter", "again", "merged", "left_out", "another", "packed", "evaluate",
)  # fmt: skip
NEEDS = {
    "sft": (), "clip": ("sft",), "adapter": ("sft",), "again": ("adapter",), "merged": ("again",),
    "left_out": ("sft",), "another": ("again",), "packed": ("again",),
    "evaluate": ("sft", "clip", "again"),
}  # fmt: skip
GRPO = ("clip", "adapter", "again", "merged", "left_out", "another")
SFT = ("sft", "packed")


def all_stages() -> dict[str, base.ConfigDict]:
    """Every stage. Some have the same loss and optimizer, so that they share a program."""
    lora = {"rank": 2, "alpha": 4.0, "targets": "q|v"}
    clip = {
        "microbatches": 2,
        "minibatches": 2,
        "sampling": {"temperature": 0.7},
        "loss": {
            "aggregation": "token", "kl_coef": 0.1, "clip_low": 0.05, "clip_high": 0.1,
        },
    }  # fmt: skip
    adapter = {
        "lora": lora,
        "sampling": {"temperature": 1.3},
        "epochs": 2,
        "loss": {"kl": "k2", "kl_coef": 0.1, "ratio": "sequence", "clip_low": 0.05},
        "optimizer": {"learning_rate": 0.1},
    }
    evaluate = base.evaluate()
    evaluate.update(policies=("sft", "clip", "again"), batch=P * G, max_new_tokens=C)
    evaluate.update(samples=G, ks=(1, 2), sampling=sampling(EVALUATED_AT))
    return {
        "sft": supervised(
            steps=6, batch=4, microbatches=2,
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
            {"picky": (1.0, None), "length": (0.5, None)},
            **with_loss(clip, decoupled=True, aggregation="sum"),
            epochs=2, dynamic_sampling="refill", max_rounds=3,
        ),
        "left_out": stage(
            {"picky": (1.0, None), "shy": (0.25, None)},
            start="sft", iterations=4, dynamic_sampling="drop", microbatches=3,
            loss={
                "kl_coef": 0.0, "mask_truncated": True, "entropy_coef": 0.02,
                "off_policy_limit": 0.1, "correction": "cap", "correction_level": "token",
                "correction_cap": 1.2,
            },
            optimizer={
                "learning_rate": 5e-2, "weight_decay": 0.1, "decayed": ".*/(w|table)",
                "clip_norm": 0.3, "warmup": 0.5, "schedule": "cosine", "final": 0.2,
            },
        ),
        "another": stage(
            {"hashed": (1.0, None), "half": (0.5, None)},
            start="again", lora={**lora, "rank": 3}, reference="base", entropy=False,
            loss={
                "baseline": "leave_one_out", "scale": "none", "eps": None,
                "surrogate": "reinforce", "clip_low": None, "clip_high": None,
                "aggregation": "constant", "kl": "k1", "kl_in": "reward", "kl_coef": 0.05,
            },
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


def noise(shape) -> np.ndarray:
    """What a stale sampler's log-probabilities are off by, here."""
    return np.float32(0.3 * np.sin(1.0 + 1.7 * np.arange(np.prod(shape)))).reshape(shape)


@contextlib.contextmanager
def watched(trained: list[Sampled], evaluated: list[Sampled]):
    """Notes every call of the sampler, and makes the log-probabilities it tells to training stale.

    With exact ones a correction of the sampler would be of 1.0, and nothing would show that it was
    made, nor that they were taken for the trainer's own.
    """
    rollout = grpo.rollout.generate.rollout

    def seen(module, variables, ids_PI, mask_PI, key_B, sampling, stop_ids, **named):
        told = rollout(module, variables, ids_PI, mask_PI, key_B, sampling, stop_ids, **named)
        told = jax.tree.map(np.asarray, told)
        assert told.prompt_ids_BI.shape[0] == len(ids_PI) * named["group"]
        parts = told.prompt_ids_BI, told.prompt_mask_BI
        prompts = [ids[mask != 0].tolist() for ids, mask in zip(*parts, strict=True)]
        ends = [
            next((c + 1 for c, token in enumerate(ids) if token in stop_ids), None)
            for ids in told.completion_ids_BC
        ]
        here = Sampled(
            prompts=prompts,
            completions=[
                ids[:n].tolist() for ids, n in zip(told.completion_ids_BC, ends, strict=True)
            ],
            truncated=[end is None for end in ends],
            sample_logprob=[
                np.float64(x[:n]) for x, n in zip(told.sample_logprob_BC, ends, strict=True)
            ],
            keys=[key.tobytes() for key in np.asarray(jax.random.key_data(key_B))],
            temperature=round(float(sampling.temperature), 6),
        )
        if here.temperature in (0.0, EVALUATED_AT):
            evaluated.append(here)
            return told
        trained.append(here)
        stale = told.sample_logprob_BC + noise(told.sample_logprob_BC.shape)
        return told._replace(sample_logprob_BC=np.where(told.completion_mask_BC, stale, 0.0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.rollout.generate, "rollout", seen)
        for name, formula in FORMULAS.items():
            patch.setitem(REWARDS, name, functools.partial(reward, formula))
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

    def folder(stage: str, update: int) -> pathlib.Path:
        return workdir / "checkpoints" / stage / f"{update:08d}"

    def trainable(stage: str, update: int) -> dict[str, np.ndarray]:
        path = folder(stage, update) / "arrays" / "trainable"
        with checkpointer() as orbax:
            there = orbax.metadata(path.absolute()).item_metadata.tree
        return flat(
            read_arrays(path, {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in there.items()})
        )

    def taken(stage: str, update: int) -> int:
        return json.loads((folder(stage, update) / "extra.json").read_text())["extra"]["cursor"][
            "taken"
        ]

    return Left(
        config=config.to_dict(),
        size=run.size,
        examples={"train": run.data.train, "test": run.data.test},
        prompt=lambda example: prompt_ids(run.tokenizer, example, run.template),
        target=lambda example: target_ids(run.tokenizer, example, run.template),
        decode=run.tokenizer.decode,
        stops=run.tokenizer.stop_ids,
        trained=trained,
        evaluated=evaluated,
        rollouts=rows(workdir, "rollouts"),
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


# What follows from it, in the project's words but not by its code


def example_at(left: Left, index: int):
    """The example at an index of the order: every epoch a permutation of its own."""
    train = left.examples["train"]
    epoch, place = divmod(index, len(train))
    return train[np.random.RandomState([SEED, epoch]).permutation(len(train))[place]]


def lora_of(left: Left, name: str) -> dict | None:
    lora = None if name == "base" else left.config["stages"][name]["lora"]
    return None if lora is None or lora["rank"] is None else lora


def before(left: Left, name: str) -> str:
    """The stage that a stage goes on from."""
    pipeline = left.config["pipeline"]
    first = pipeline.index(name) == 0
    return left.config["stages"][name]["start"] or (
        "base" if first else pipeline[pipeline.index(name) - 1]
    )


def start(left: Left, name: str) -> Weights:
    """What a stage begins with."""
    weights, lora = end(left, before(left, name)), lora_of(left, name)
    if lora == lora_of(left, before(left, name)):
        return weights
    params = weights.merged().params
    if lora is None:
        return Weights(params)
    return Weights(params, left.fresh(name), lora["alpha"] / lora["rank"])


def end(left: Left, name: str) -> Weights:
    """What a stage has left."""
    if name == "base":
        return Weights(left.base)
    return start(left, name).trained_as(left.trainable(name, left.updates(name)[-1]))


def reference(left: Left, name: str) -> Weights:
    """What a stage's policy is held to."""
    is_base = left.config["stages"][name]["reference"] == "base"
    return Weights(left.base) if is_base else start(left, name)


def rounds(left: Left, name: str, number: int) -> list[list[list[Row]]]:
    """P groups of G rows for each round of an iteration; its log-probabilities are the stale ones.

    rollouts.jsonl says which call of the sampler was for which stage: it has a row per completion.
    """
    calls = list(dict.fromkeys((r["stage"], r["iteration"], r["round"]) for r in left.rollouts))
    assert len(calls) == len(left.trained)
    found = []
    for call, told in zip(calls, left.trained, strict=True):
        if call[:2] != (name, number):
            continue
        assert call[2] == len(found)
        off = noise((P * G, C))
        flat_rows = []
        for b, completion in enumerate(told.completions):
            question = example_at(left, told_index(left, name, number, call[2], b))["question"]
            text = left.decode(completion if told.truncated[b] else completion[:-1])
            flat_rows.append(
                Row(
                    prompt=told.prompts[b],
                    completion=completion,
                    truncated=told.truncated[b],
                    sample_logprob=told.sample_logprob[b] + off[b, : len(completion)],
                    rewards={
                        f: FORMULAS[f](question, text)
                        for f in left.config["stages"][name]["rewards"]
                    },
                )
            )
        found.append([flat_rows[p * G : (p + 1) * G] for p in range(P)])
    return found


def told_index(left: Left, name: str, number: int, round: int, row: int) -> int:
    """The place in the order of examples of a row's prompt: P for each round there was before."""
    calls = list(dict.fromkeys((r["stage"], r["iteration"], r["round"]) for r in left.rollouts))
    mine = [call for call in calls if call[0] == name]
    return mine.index((name, number, round)) * P + row // G
