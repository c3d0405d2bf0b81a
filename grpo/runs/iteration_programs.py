"""What an iteration of GRPO compiles, from models that are there or from their shapes.

update, and what samples          grpo/training/train_step.py, grpo/rollout/generate.py
log-probs, teacher log-probs      grpo/rollout/frozen.py
forecast, gradient by reward      grpo/diagnostics/programs.py
rewards that models give          grpo/runs/model_rewards.py
what evaluates while it trains    grpo/runs/stage_loop.py
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from grpo.algorithms.groups import Groups, groups_of
from grpo.algorithms.losses import with_token_weights
from grpo.algorithms.presets import objective_of
from grpo.data.datasets import buckets_for
from grpo.diagnostics.programs import diagnostic_calls, diagnostic_programs
from grpo.rollout.frozen import Frozen, Needs, frozen_programs, learnt, needs_of
from grpo.rollout.generate import sampling_programs
from grpo.rollout.sampler import Rollout
from grpo.runs.model_rewards import model_reward_calls, model_reward_programs
from grpo.runs.stage_loop import running_calls, running_evaluation
from grpo.training.logprobs import Logprobs, make_policy_loss
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy

Config = Mapping[str, Any]


def buckets_of(stage: Config, config: Config) -> tuple[int, ...]:
    """Rounds of one iteration stand side by side: all of them need the same number of columns."""
    buckets = buckets_for(config, stage["data"])
    return buckets if stage["max_rounds"] == 1 else (max(buckets),)


def logprobs_of(stage: Config, policy: Policy) -> Logprobs:
    """How the stage computes log-probs.

    Where microbatches, or the devices, cut a group, each part of it has its own prompt.
    """
    parts = stage["microbatches"] * stage["minibatches"]
    devices = 1 if policy.mesh is None else policy.mesh.shape["fsdp"]
    rows = stage["prompts"] * stage["group"] // (parts * devices)
    return Logprobs(
        module=policy.module,
        temperature=stage["sampling"]["temperature"],
        with_entropy=stage["entropy"],
        entropy_learns=bool(objective_of(stage["loss"]).entropy_coef),
        group=math.gcd(stage["group"], rows) if policy.share_prompts else 1,
    )


def iteration_programs(
    config: Config, name: str, policy: Policy, teacher: Policy | None
) -> dict[str, Program]:
    """The programs by name."""
    stage, needs = config["stages"][name], needs_of(config["stages"][name])
    C, minibatches = stage["max_new_tokens"], stage["minibatches"]
    buckets, logprobs = buckets_of(stage, config), logprobs_of(stage, policy)
    sampling = sampling_programs(
        policy, buckets, prompts=stage["prompts"], sampling=stage["sampling"],
        group=stage["group"], max_new_tokens=C,
    )  # fmt: skip
    sampled = sampling["rollout"].eval_shape()
    loss = make_policy_loss(logprobs, needs.objective)
    batches = [shapes_of_batch(one, policy.mesh, minibatches, needs) for one in sampled]
    terms = terms_of(stage, needs)
    programs = {
        "update": update_program(
            loss,
            policy,
            optimizer=stage["optimizer"],
            updates=stage["iterations"] * needs.updates,
            microbatches=stage["microbatches"],
            group=logprobs.group,
            batches=batches,
        ),
        **sampling,
        **diagnostic_programs(stage, policy, logprobs, loss, batches, terms),
    }
    tokens = [rows_shape(policy.mesh, one.ids_BT.dtype, *one.ids_BT.shape) for one in sampled]
    programs |= model_reward_programs(config, stage, policy, tokens, buckets)
    programs |= frozen_programs(
        stage, needs, logprobs, policy, teacher, tokens, logged=config["log"]["tokens"]
    )
    if stage["evaluate_every"]:
        programs |= running_evaluation(config, name, policy)
    return programs


def iteration_calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs in the stage, with one round in each iteration."""
    stage = config["stages"][name]
    needs, iterations = needs_of(stage), stage["iterations"]
    return {
        **dict.fromkeys(
            ("decoding weights", "rollout", "teacher log-probs", "entropy"), iterations
        ),
        "log-probs": iterations * (needs.old + needs.reference),
        "update": iterations * needs.updates,
        **model_reward_calls(config, stage),
        **diagnostic_calls(stage, terms_of(stage, needs)),
        **running_calls(config, name, iterations),
    }


def terms_of(stage: Config, needs: Needs) -> int:
    """The terms of a reward: functions that count, and penalties."""
    terms = sum(entry["weight"] != 0 for entry in stage["rewards"].values())
    return terms + needs.penalty + (needs.objective.overlong_penalty is not None)


def shapes_of_batch(sampled: Rollout, mesh: Any, minibatches: int, needs: Needs) -> Groups:
    """The shapes of what an update learns from, given those of a rollout."""
    rows, completion = len(sampled.truncated_B) // minibatches, sampled.completion_mask_BC.shape[1]
    logprob_BC = rows_shape(mesh, jnp.float32, rows, completion)
    needed = needs.old, needs.reference, needs.teacher
    frozen = Frozen(*(logprob_BC if is_needed else None for is_needed in needed))
    groups = groups_of(
        {n: rows_shape(mesh, x.dtype, rows, *x.shape[1:]) for n, x in sampled._asdict().items()},
        {
            "advantage_B": rows_shape(mesh, jnp.float32, rows),
            "spread_B": rows_shape(mesh, jnp.bool_, rows),
        },
        learnt(frozen, needs),
    )
    weigh = functools.partial(with_token_weights, limit=completion, objective=needs.objective)
    return jax.eval_shape(weigh, groups)
