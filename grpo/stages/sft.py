"""Supervised training on worked solutions.

    θ <- AdamW(θ, ∇ -(1/n) Σ_t log π(target_t | prompt, target_<t))

over the n target tokens of an update, the end of the turn among them: prompts are read, never
learnt. Examples come in the order of (seed, index); they are a dataset's, or those for which a
stage `traces` has solutions. With `packing` a row holds several of them, which do not see each
other.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from grpo.checks.rules import COUNT, TEXT, TRAINED, optional
from grpo.checks.sections import about_rows, about_training
from grpo.data.datasets import buckets_for, section_of
from grpo.data.examples import Example
from grpo.data.packing import Pair, Rows, one_each, packed
from grpo.data.templates import prompt_ids, target_ids
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.solutions import solutions
from grpo.runs.stage_loop import StageLoop, running_calls, running_evaluation
from grpo.training.logprobs import Logprobs, make_supervised_loss
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy

Config = Mapping[str, Any]
FIELDS = {
    **TRAINED,
    "steps": COUNT,
    "solutions": optional(TEXT),
    "examples": optional(COUNT),
    "batch": COUNT,
    "max_target": COUNT,
    "packing": optional(COUNT),
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rows(stage["batch"], stage, config, "batch")
    longest = section_of(config, stage["data"])["max_prompt"] + stage["max_target"]
    if stage["packing"] is not None and stage["packing"] < longest:
        yield (
            f"packing={stage['packing']}: an example may have {longest} tokens "
            "(max_prompt of its data + max_target)"
        )


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The programs of a step, for a policy that is there or for its shapes."""
    stage, mesh = config["stages"][name], policy.mesh
    rows, target, packing = stage["batch"], stage["max_target"], stage["packing"]

    def batch(T: int, C: int) -> Rows:
        tokens_BT = rows_shape(mesh, jnp.int32, rows, T)
        return Rows(tokens_BT, tokens_BT, rows_shape(mesh, jnp.float32, rows, C))

    buckets = buckets_for(config, stage["data"])
    batches = [batch(bucket + target, target) for bucket in buckets]
    logprobs = Logprobs(module=policy.module, temperature=1.0, with_entropy=False)
    programs = {
        "update": update_program(
            make_supervised_loss(logprobs),
            policy,
            optimizer=stage["optimizer"],
            updates=stage["steps"],
            microbatches=stage["microbatches"],
            batches=batches if packing is None else [batch(packing, packing - 1)],
        )
    }
    if stage["evaluate_every"]:
        programs |= running_evaluation(config, name, policy)
    return programs


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs."""
    steps = config["stages"][name]["steps"]
    return {"update": steps, **running_calls(config, name, steps)}


class Setting(NamedTuple):
    """What stays the same through the stage."""

    run: Run
    name: str
    stage: Config
    programs: dict[str, Program]
    examples: Sequence[Example]
    order: Callable[[int], int]  # of the examples


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    setting, loop = opened(run, name, policies)
    loop.evaluate_at_start()
    while not loop.is_done:
        learn(setting, loop)
        loop.evaluate_save_or_stop()


def opened(run: Run, name: str, policies: Policies) -> tuple[Setting, StageLoop]:
    """The stage where it is."""
    stage, start = run.config["stages"][name], policies.start(name)
    examples = solutions(
        run, name, start.own_tokenizer,
        source=stage["solutions"], limit=stage["max_target"], most=stage["examples"],
    )  # fmt: skip
    setting = Setting(
        run=run,
        name=name,
        stage=stage,
        programs=build(run.config, name, start),
        examples=examples,
        order=run.data_of(name).order(examples, run.seed),
    )
    return setting, StageLoop(run, name, start, stage["steps"], updates=1)


def learn(setting: Setting, loop: StageLoop) -> None:
    """One update from the next examples."""
    rows, count = batch_of(setting, loop)
    state, metrics = setting.programs["update"](loop.state, loop.start.frozen, rows)
    loop.keep_update(state, metrics, rows._asdict())
    loop.move_to(loop.iteration + 1, taken=count)


def batch_of(setting: Setting, loop: StageLoop) -> tuple[Rows, int]:
    """The rows that the coming update learns from, and how many examples they hold."""
    stage = setting.stage
    stream = (pair for _, pair in following(setting, loop))
    if stage["packing"] is not None:
        return packed(stream, stage["batch"], stage["packing"])
    pairs = list(itertools.islice(stream, stage["batch"]))
    return one_each(pairs, setting.run.config["data"]["buckets"], stage["max_target"]), len(pairs)


def following(setting: Setting, loop: StageLoop) -> Iterator[tuple[Example, Pair]]:
    """The next examples in their order, without end, each with its tokens."""
    tokenizer, template = loop.policy.own_tokenizer, setting.run.data_of(setting.name).template
    for index in itertools.count(loop.taken):
        example = setting.examples[setting.order(index)]
        prompt = prompt_ids(tokenizer, example, template)
        yield example, (prompt, target_ids(tokenizer, example, template))
