"""Supervised training on worked solutions.

    θ <- AdamW(θ, ∇ -(1/n) Σ_t log π(target_t | prompt, target_<t))

over the n target tokens of an update, the end of the turn among them: prompts are read, never
learnt. Examples come in the order of (seed, index); they are a dataset's, or those for which a
stage `traces` has solutions. With `packing` a row holds several of them, which do not see each
other.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from grpo.checks.rules import COUNT, TEXT, TRAINED, optional
from grpo.checks.sections import about_rows, about_training
from grpo.data.datasets import buckets_for, section_of
from grpo.data.examples import Example
from grpo.data.packing import Rows, one_each, packed
from grpo.data.templates import prompt_ids, target_ids
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.solutions import solutions
from grpo.runs.stage_loop import StageLoop, running_evaluation
from grpo.training.logprobs import Logprobs, make_supervised_loss
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy
from models.tokenizer import Tokenizer

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


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    stage, start = run.config["stages"][name], policies.start(name)
    examples = solutions(
        run, name, start.own_tokenizer,
        source=stage["solutions"], limit=stage["max_target"], most=stage["examples"],
    )  # fmt: skip
    place_of = run.data_of(name).order(examples, run.seed)
    update_policy = build(run.config, name, start)["update"]
    loop = StageLoop(run, name, start, stage["steps"], updates=1)
    loop.evaluate_at_start()
    while not loop.is_done:
        following = (examples[place_of(index)] for index in itertools.count(loop.taken))
        rows, count = batch_from(run, name, start.own_tokenizer, following)
        state, metrics = update_policy(loop.state, start.frozen, rows)
        loop.keep_update(state, metrics, rows._asdict())
        loop.move_to(loop.iteration + 1, taken=count)
        loop.evaluate_save_or_stop()


def batch_from(
    run: Run, name: str, tokenizer: Tokenizer, examples: Iterable[Example]
) -> tuple[Rows, int]:
    """The rows of an update from the next examples, and how many of these they hold."""
    stage, template = run.config["stages"][name], run.data_of(name).template
    stream = (
        (prompt_ids(tokenizer, example, template), target_ids(tokenizer, example, template))
        for example in examples
    )
    if stage["packing"] is not None:
        return packed(stream, stage["batch"], stage["packing"])
    pairs = list(itertools.islice(stream, stage["batch"]))
    return one_each(pairs, run.config["data"]["buckets"], stage["max_target"]), len(pairs)
