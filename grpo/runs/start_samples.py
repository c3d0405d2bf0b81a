"""Samples of a policy by a GRPO stage's own programs, and what its rewards give them.

A batch has the shape of an iteration's, P prompts with G completions each, so that the stage's
compiled programs serve, those of rewards that models give among them; a prompt that is to have more
than G samples stands in a batch, or in two, as often as that takes. Keys are of a purpose of their
own: nothing that training draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.data.examples import Example
from grpo.data.templates import prompt_ids
from grpo.rewards.correct import CORRECT
from grpo.rewards.given import GIVEN
from grpo.rewards.pool import caller_of
from grpo.rewards.scores import Caller, asked_about, score
from grpo.rewards.table import Entry, fitted, reward_table, with_values
from grpo.rollout.generate import Sampler, sampling_programs, texts_of
from grpo.rollout.sampler import row_keys
from grpo.runs.given_rewards import Batch, Given, ask, given_to
from grpo.runs.iteration_programs import buckets_of
from grpo.runs.model_rewards import model_reward_programs, model_rewards_of
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.training.program import rows_shape
from models.policy import Policy

Config = Mapping[str, Any]


class Samples(NamedTuple):
    """n samples of each of E examples."""

    total_En: np.ndarray  # rewards, NaN where there is none
    right_En: np.ndarray  # in strict form, with the right answer
    length_En: np.ndarray  # tokens
    truncated_En: np.ndarray


def rounded_up(samples: int, group: int) -> int:
    """The samples of a prompt in whole groups."""
    return -(-samples // group) * group


def start_samples(
    run: Run,
    policies: Policies,
    name: str,
    policy: Policy,
    examples: Sequence[Example],
    *,
    samples: int,
    sampling: Config,
    step: int,
) -> Samples:
    """`samples` completions of every example, in whole groups, and their rewards in a stage."""
    stage, data = run.config["stages"][name], run.data_of(name)
    table = reward_table({"name": f, **entry} for f, entry in stage["rewards"].items())
    table, given = fitted(table, data.train), given_of(policies, name, policy, run)
    repeats = rounded_up(samples, stage["group"]) // stage["group"]
    slots = [example for example in examples for _ in range(repeats)]
    columns: list[tuple[np.ndarray, ...]] = []
    with caller_of(table, data.train, stage, run.stop.check) as caller:
        for batch in batches(run, name, policy, slots, sampling=sampling, step=step):
            run.stop.check()
            columns.append(earned(batch, stage, table, given, caller))
    rows = len(slots) * stage["group"]
    joined = (np.concatenate(parts)[:rows] for parts in zip(*columns, strict=True))
    return Samples(*(x_B.reshape(len(examples), -1) for x_B in joined))


class Drawn(NamedTuple):
    """A batch, with what is known of its completions beside their texts."""

    batch: Batch
    length_B: np.ndarray
    truncated_B: np.ndarray


def batches(
    run: Run,
    name: str,
    policy: Policy,
    slots: Sequence[Example],
    *,
    sampling: Config,
    step: int,
) -> Iterator[Drawn]:
    """G completions of each slot, P slots at a time; the last batch is filled up."""
    stage, template = run.config["stages"][name], run.data_of(name).template
    P, G, tokenizer = stage["prompts"], stage["group"], policy.own_tokenizer
    sampler = Sampler(policy, buckets_of(stage, run.config))
    for first in range(0, len(slots), P):
        part = slots[first : first + P]
        filled = [*part, *[part[-1]] * (P - len(part))]
        rollout = sampler.sample(
            [prompt_ids(tokenizer, example, template) for example in filled],
            row_keys(run.seed, "power", step, first * G + jnp.arange(P * G)),
            sampling=sampling, group=G, max_new_tokens=stage["max_new_tokens"],
        )  # fmt: skip
        repeated = [example for example in filled for _ in range(G)]
        texts = texts_of(rollout, tokenizer)
        batch = Batch(rollout.ids_BT, rollout.mask_BT, repeated, texts, policy, {})
        yield Drawn(batch, np.asarray(rollout.length_B), np.asarray(rollout.truncated_B))


def earned(
    drawn: Drawn, stage: Config, table: Mapping[str, Entry], given: Given, caller: Caller
) -> tuple[np.ndarray, ...]:
    """The arrays of `Samples`, of a batch."""
    batch, how = drawn.batch, {"seconds": stage["reward_seconds"], "caller": caller}
    examples, texts = batch.examples, batch.texts
    asked = asked_about(table, examples, texts, **how)
    values, _ = given_to(ask(batch._replace(asked=asked), given), lambda: None)
    scores = score(with_values(table, values, examples), examples, texts, **how)
    pairs = zip(examples, texts, strict=True)
    right_B = np.array([CORRECT["strict"](*pair) for pair in pairs])
    return scores.total, right_B, drawn.length_B, drawn.truncated_B


def given_of(policies: Policies, name: str, policy: Policy, run: Run) -> Given:
    """What gives the rewards of models, if the stage has any."""
    stage = run.config["stages"][name]
    if not any(reward in GIVEN for reward in stage["rewards"]):
        return {}
    buckets = buckets_of(stage, run.config)
    sampled = sampling_programs(
        policy, buckets, prompts=stage["prompts"], sampling=stage["sampling"],
        group=stage["group"], max_new_tokens=stage["max_new_tokens"],
    )["rollout"].eval_shape()  # fmt: skip
    tokens = [rows_shape(policy.mesh, one.ids_BT.dtype, *one.ids_BT.shape) for one in sampled]
    programs = model_reward_programs(run.config, stage, policy, tokens, buckets)
    return model_rewards_of(policies, name, programs, run.data_of(name).template, buckets)
