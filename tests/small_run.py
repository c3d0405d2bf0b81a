"""A run small enough for tests, with rewards that differ, and ways to interrupt it."""

import contextlib
import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from configs import base
from grpo.pipeline import run_config
from grpo.reporting.progress import Progress
from grpo.rewards.batch import each
from grpo.rewards.table import REWARDS
from grpo.rollout.generate import Sampler
from grpo.rollout.sampler import row_keys
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop
from grpo.runs.setup import set_up
from grpo.runs.stage_loop import StageLoop
from grpo.storage.arrays import checkpointer, read_arrays
from grpo.storage.journal import read_journal
from grpo.storage.snapshot import About, read_about
from models.config import SIZES

FILES = (
    "metrics.jsonl",
    "rollouts.jsonl",
    "tokenizer.model",
    "config.json",
    "data.json",
)
P, G, C = 4, 2, 6  # prompts, completions of each, tokens of each
REWARD = "tag_format"  # its place in the table is taken by `noise`


TWO_LAYERS = dataclasses.replace(SIZES["gemma3_micro"], num_layers=2, kinds=("local", "global"))


def small() -> base.ConfigDict:
    """A config without stages."""
    config = base.base()
    config.model.update(size="gemma3_micro", vocab=400)
    config.data.update(
        train_examples=24, test_examples=4, max_prompt=64, buckets=(64,), levels=(1,)
    )
    config.evaluation.update(examples=4, batch=2, max_new_tokens=C)
    config.log.every_s = 0.0
    return config


def small_sft() -> base.ConfigDict:
    """Three updates."""
    stage = base.sft()
    stage.update(steps=3, batch=2)
    stage.optimizer.learning_rate = 1e-2
    return stage


def small_grpo() -> base.ConfigDict:
    """Three iterations of one update."""
    stage = base.grpo()
    stage.update(iterations=3, prompts=P, group=G, max_new_tokens=C)
    stage.optimizer.learning_rate = 1e-2
    stage.rewards[REWARD] = base.reward(1.0, 0.0, 1.0)
    return stage


def sft_and_adapter(*measured: str):
    """All parameters are trained, then an adapter on these; two updates each, all of them kept."""
    run = small()
    run.stages.sft, run.stages.adapter, run.stages.evaluate = (
        small_sft(), small_sft(), small_evaluate(),
    )  # fmt: skip
    for stage in (run.stages.sft, run.stages.adapter):
        stage.update(steps=2, checkpoint_every=1)
    run.stages.adapter.lora.update(rank=2, alpha=4.0, targets="q|v")
    run.stages.evaluate.policies = measured
    run.pipeline = ("sft", "adapter", "evaluate")
    return run


def small_evaluate() -> base.ConfigDict:
    """Two policies, greedily."""
    stage = base.evaluate()
    stage.update(policies=("sft", "grpo"), batch=2, max_new_tokens=C)
    return stage


def noise(example, completion: str) -> float:
    """A reward that hardly two completions share."""
    return zlib.crc32(completion.encode("utf-8", "surrogatepass")) / 2**32


@contextlib.contextmanager
def workshop(reward: Callable = noise) -> Iterator[None]:
    """The reward in place, and a smaller model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARDS, REWARD, each(reward))
        patch.setitem(SIZES, "gemma3_micro", TWO_LAYERS)  # which compile in two thirds of the time
        yield


def launch(config: base.ConfigDict, workdir: pathlib.Path) -> int:
    """What launch.py does with a config."""
    return run_config(config.to_dict(), workdir)


@contextlib.contextmanager
def watched(see: Callable[[Run, str], None]) -> Iterator[list[str]]:
    """Lets `see` look at a run after each batch of completions and each update."""
    events: list[str] = []
    runs: list[Run] = []
    drawn = [""]
    keep_update, sample = StageLoop.keep_update, Sampler.sample

    def seen(event: str) -> None:
        events.append(event)
        see(runs[-1], event)

    def watched_set_up(*words):
        run, policies = set_up(*words)
        runs.append(run)
        return run, policies

    def watched_keys(seed, purpose, step, rows_B):
        drawn[0] = f"{purpose} {step}"
        return row_keys(seed, purpose, step, rows_B)

    def watched_sample(self, *words, **named):
        rollout = sample(self, *words, **named)
        seen(drawn[0])
        return rollout

    def watched_update(self, *words, **named):
        keep_update(self, *words, **named)
        seen(f"{self.stage} update {self.step}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grpo.pipeline.set_up", watched_set_up)
        modules = ("stages.grpo", "stages.pairs", "runs.policy_teacher", "evaluation.evaluate")
        for module in (f"grpo.{name}" for name in modules):
            patch.setattr(f"{module}.row_keys", watched_keys)
        patch.setattr(Sampler, "sample", watched_sample)
        patch.setattr(StageLoop, "keep_update", watched_update)
        yield events


def stop_at(event: str, nth: int = 1) -> Callable[[Run, str], None]:
    """Asks a run to stop after the nth event of a name, as a signal would."""
    left = [nth]

    def see(run: Run, seen: str) -> None:
        left[0] -= seen == event
        if left[0] == 0 and seen == event:
            run.stop.reason = f"stopped after {event}"

    return see


def newest(workdir: pathlib.Path, stage: str) -> tuple[int, dict]:
    """The newest checkpoint of a stage, and its cursor."""
    path = max((workdir / "checkpoints" / stage).glob("[0-9]*[0-9]"))
    return int(path.name), read_about(path).extra["cursor"]


def opened(config: base.ConfigDict, workdir: pathlib.Path, stream) -> tuple[Run, Policies]:
    """A run and its policies, for looking at."""
    return set_up(config.to_dict(), workdir, Progress(stream, every_s=0), Stop())


def rows(workdir: pathlib.Path, journal: str) -> list[dict]:
    """The rows of a journal."""
    return read_journal(workdir / f"{journal}.jsonl")


def about(workdir: pathlib.Path, stage: str, step: int) -> About:
    """What a checkpoint says of itself."""
    return read_about(workdir / "checkpoints" / stage / f"{step:08d}")


def arrays(step: pathlib.Path) -> dict[str, bytes]:
    """Every array of a checkpoint, by part and path."""
    got = {}
    for part in ("trainable", "optimizer"):
        folder = step / "arrays" / part
        with checkpointer() as orbax:
            metadata: Any = orbax.metadata(folder.absolute()).item_metadata
        there = metadata.tree
        like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in there.items()}
        for name, x in read_arrays(folder, like).items():
            got[f"{part}/{name}"] = f"{x.dtype}{x.shape}".encode() + np.asarray(x).tobytes()
    return got


def final(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """The last checkpoint of a stage."""
    return workdir / "checkpoints" / stage / f"{newest(workdir, stage)[0]:08d}"


def assert_same_run(left: pathlib.Path, right: pathlib.Path) -> None:
    """Everything that two runs have left is the same, bit by bit, but for seconds."""
    for stage in sorted(path.name for path in (left / "checkpoints").iterdir()):
        a, b = final(left, stage), final(right, stage)
        assert a.name == b.name
        there, here = arrays(a), arrays(b)
        assert len(there) > 10
        assert [name for name in there if there[name] != here[name]] == []
        assert there.keys() == here.keys()
        assert trimmed(a) == trimmed(b)
    for file in (*(file for file in FILES if (left / file).exists()), *left_by_stages(left)):
        there, here = ((run / file).read_bytes() for run in (left, right))
        assert there == here, file


def left_by_stages(workdir: pathlib.Path) -> list[str]:
    """The files that stages have left beside checkpoints."""
    patterns = ("evaluations/*.json*", "preferences/*.jsonl", "traces/*/*.jsonl")
    found = [path for pattern in patterns for path in workdir.glob(pattern)]
    return [path.relative_to(workdir).as_posix() for path in found]


def trimmed(step: pathlib.Path) -> dict:
    """What a checkpoint says beside its arrays, without seconds."""
    got = read_about(step)._asdict()
    got["extra"] = {name: x for name, x in got["extra"].items() if name != "seconds"}
    return got
