"""Group Relative Policy Optimization (arXiv:2402.03300), one iteration after the other.

    (1) sample     o_1 … o_G ~ π_θ(· | q)                        for each of P prompts q
    (2) score      r_i = Σ_f weight_f · gate_f · reward_f(q, o_i)
    (3) log-probs  log π_old and log π_ref of the tokens as sampled
    (4) compare    A_i = (r_i - mean r) / (std r + eps)          within the group of o_i
    (5) update     θ <- AdamW(θ, ∇L)                             `epochs` times, in minibatches

L is that of grpo/algorithms/losses.py; options of the loss may change (4) as well. With one update
per iteration π_old is π_θ itself, and the ratio of the two is 1. Which rounds of groups make an
iteration is said in grpo/rollout/collect.py.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups, groups_of
from grpo.algorithms.losses import kl_penalty, with_token_weights
from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import objective_of
from grpo.algorithms.rewards_to_advantages import compiled_advantages
from grpo.checks.rules import (
    COUNT,
    CURRICULUM,
    FLAG,
    LOSS,
    NAMED,
    POSITIVE,
    SAMPLING,
    SHARE,
    TRAINED,
    number,
    one_of,
)
from grpo.checks.sections import (
    about_curriculum,
    about_groups,
    about_loss,
    about_reward_workers,
    about_rewards,
    about_rows,
    about_training,
)
from grpo.data.curriculum import (
    START,
    Curriculum,
    after,
    curriculum_of,
    promoted_at,
    sorted_order,
)
from grpo.data.datasets import buckets_for
from grpo.data.templates import prompt_ids
from grpo.rewards.pool import caller_of
from grpo.rewards.scores import Caller, Scores, score, shuffled
from grpo.rewards.table import Entry, fitted, reward_table, total_range, with_values
from grpo.rollout.collect import Collected, collect_rounds, examples_from
from grpo.rollout.generate import Sampler, sampling_programs, texts_of
from grpo.rollout.metrics import rollout_metrics
from grpo.rollout.rollouts_jsonl import rollout_rows
from grpo.rollout.sampler import Rollout, row_keys
from grpo.runs.given_rewards import Batch, Given
from grpo.runs.model_rewards import (
    about_model_rewards,
    model_reward_programs,
    model_rewards_of,
)
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.stage_loop import StageLoop, running_evaluation
from grpo.training.batches import minibatch
from grpo.training.logprobs import Logprobs, logprobs_of_rows, make_policy_loss
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy

Config = Mapping[str, Any]
FIELDS = {
    **TRAINED,
    **SAMPLING,
    **LOSS,
    **CURRICULUM,
    "rewards": NAMED,
    "iterations": COUNT,
    "prompts": COUNT,
    "group": number(int, 2),
    "max_new_tokens": COUNT,
    "epochs": COUNT,
    "minibatches": COUNT,
    "dynamic_sampling": one_of("off", "drop", "refill"),
    "max_rounds": COUNT,
    "reference": one_of("start", "base"),
    "entropy": FLAG,
    "reward_seconds": POSITIVE,
    "reward_workers": number(int, 0, 256),
    "reward_batch_seconds": POSITIVE,
    "reward_memory": number(int, 512),
    "max_abstained": SHARE,
    "shuffle_rewards": FLAG,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rewards(stage["rewards"])
    yield from about_reward_workers(stage)
    yield from about_model_rewards(stage, config)
    yield from about_loss(stage)
    rows = stage["prompts"] * stage["group"]
    if stage["prompts"] % stage["minibatches"]:
        yield f"minibatches={stage['minibatches']}: does not divide prompts={stage['prompts']}"
    else:
        yield from about_rows(
            rows // stage["minibatches"], stage, config, "prompts * group / minibatches"
        )
    yield from about_groups(stage)
    yield from about_curriculum(stage, config)
    if stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: the completions of a group would be the same; expected more"


class Needs(NamedTuple):
    """What the objective makes of an iteration."""

    objective: Objective
    updates: int  # of an iteration
    old: bool  # log-probs of the policy before the updates
    reference: bool  # log-probs of the reference
    penalty: bool  # of which the KL is taken from the reward


def needs_of(stage: Config) -> Needs:
    """What an iteration of the stage needs."""
    objective = objective_of(stage["loss"])
    updates, reference = stage["epochs"] * stage["minibatches"], objective.kl_coef > 0
    penalty = reference and objective.kl_in == "reward"
    return Needs(objective, updates, updates > 1 or penalty, reference, penalty)


def buckets_of(stage: Config, config: Config) -> tuple[int, ...]:
    """Rounds of one iteration stand side by side: all of them need the same number of columns."""
    buckets = buckets_for(config, stage["data"])
    return buckets if stage["max_rounds"] == 1 else (max(buckets),)


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The programs of an iteration, for a policy that is there or for its shapes."""
    stage, needs = config["stages"][name], needs_of(config["stages"][name])
    C, minibatches = stage["max_new_tokens"], stage["minibatches"]
    buckets = buckets_of(stage, config)
    logprobs = Logprobs(
        module=policy.module,
        temperature=stage["sampling"]["temperature"],
        with_entropy=stage["entropy"],
        entropy_learns=bool(needs.objective.entropy_coef),
    )
    sampling = sampling_programs(
        policy, buckets, prompts=stage["prompts"], sampling=stage["sampling"],
        group=stage["group"], max_new_tokens=C,
    )  # fmt: skip
    sampled = sampling["rollout"].eval_shape()
    programs = {
        "update": update_program(
            make_policy_loss(logprobs, needs.objective),
            policy,
            optimizer=stage["optimizer"],
            updates=stage["iterations"] * needs.updates,
            microbatches=stage["microbatches"],
            batches=[shapes_of_batch(one, policy.mesh, minibatches, needs) for one in sampled],
        ),
        **sampling,
    }
    tokens = [rows_shape(policy.mesh, one.ids_BT.dtype, *one.ids_BT.shape) for one in sampled]
    parts = stage["microbatches"] * minibatches
    programs |= model_reward_programs(config, stage, policy, tokens, buckets)
    scored = [policy] * needs.old + [policy.base()] * needs.reference
    if scored:
        programs["log-probs"] = Program(
            logprobs_of_rows,
            tuple((one.variables, x_BT, x_BT) for one in scored for x_BT in tokens),
            {"logprobs": logprobs, "completion": C, "parts": parts},
        )
    if stage["evaluate_every"]:
        programs |= running_evaluation(config, name, policy)
    return programs


def shapes_of_batch(sampled: Rollout, mesh: Any, minibatches: int, needs: Needs) -> Groups:
    """The shapes of what an update learns from, given those of a rollout."""
    rows, completion = len(sampled.truncated_B) // minibatches, sampled.completion_mask_BC.shape[1]
    logprob_BC = rows_shape(mesh, jnp.float32, rows, completion)
    groups = groups_of(
        {n: rows_shape(mesh, x.dtype, rows, *x.shape[1:]) for n, x in sampled._asdict().items()},
        {
            "advantage_B": rows_shape(mesh, jnp.float32, rows),
            "spread_B": rows_shape(mesh, jnp.bool_, rows),
            "old_logprob_BC": logprob_BC if needs.updates > 1 else None,
            "ref_logprob_BC": logprob_BC if needs.reference else None,
        },
    )
    weigh = functools.partial(with_token_weights, limit=completion, objective=needs.objective)
    return jax.eval_shape(weigh, groups)


class Setting(NamedTuple):
    """What stays the same through the stage."""

    run: Run
    name: str
    stage: Config
    needs: Needs
    table: dict[str, Entry]
    caller: Caller  # of the reward functions
    advantages: Callable[..., tuple[jax.Array, jax.Array]]  # compiled_advantages
    reference: Policy | None
    given: Given  # rewards that models give
    programs: dict[str, Program]
    order: Callable[[int], int]  # of the examples
    curriculum: Curriculum | None  # in whose place it is


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    stage, start = run.config["stages"][name], policies.start(name)
    needs = needs_of(stage)
    table = reward_table({"name": f, **entry} for f, entry in stage["rewards"].items())
    programs, data = build(run.config, name, start), run.data_of(name)
    table = fitted(table, data.train)
    buckets = buckets_of(stage, run.config)
    loop = StageLoop(run, name, start, stage["iterations"], needs.updates)
    with caller_of(table, data.train, stage, loop.save_and_stop_if_asked) as caller:
        setting = Setting(
            run=run,
            name=name,
            stage=stage,
            needs=needs,
            table=table,
            caller=caller,
            advantages=compiled_advantages(
                {f: entry.weight for f, entry in table.items()},
                limit=stage["max_new_tokens"],
                objective=needs.objective,
            ),
            reference=policies.reference(name, start) if needs.reference else None,
            given=model_rewards_of(policies, name, programs, data.template, buckets),
            programs=programs,
            order=fixed_order(run, name),
            curriculum=curriculum_of(stage["curriculum"], data.train),
        )
        loop.evaluate_at_start()
        while not loop.is_done:
            iterate(setting, loop)


def iterate(setting: Setting, loop: StageLoop) -> None:
    """One iteration, or what is left of it."""
    stage, needs, run = setting.stage, setting.needs, setting.run
    of_rollout: dict[str, float] = {}
    if not loop.groups:  # a run that was stopped between two updates has them already
        of_rollout = collect(setting, loop)
    groups = groups_of(loop.groups)

    # (5) Update: epochs in minibatches, each weighed by itself.
    for update in range(loop.update, needs.updates):
        batch = minibatch(
            groups,
            update,
            group=stage["group"],
            minibatches=stage["minibatches"],
            order=(run.seed, loop.iteration * stage["epochs"]),
            limit=stage["max_new_tokens"],
            objective=needs.objective,
        )
        state, metrics = setting.programs["update"](loop.state, loop.start.frozen, batch)
        loop.keep_update(state, {**of_rollout, **metrics}, loop.groups)
        of_rollout, done = {}, update + 1  # they are written once
        loop.move_to(loop.iteration + done // needs.updates, done % needs.updates)
        loop.evaluate_save_or_stop()


def collect(setting: Setting, loop: StageLoop) -> dict[str, float]:
    """Gives the loop the groups of an iteration, in as many rounds as it takes; their metrics."""
    stage, config = setting.stage, setting.run.config
    sampler = Sampler(loop.policy, buckets_of(stage, config))

    def play(number: int) -> Collected:
        collected = play_round(setting, loop, sampler, number)
        loop.save_and_stop_if_asked()
        return collected

    collected, rounds = collect_rounds(
        play, prompts=stage["prompts"], group=stage["group"],
        dynamic_sampling=stage["dynamic_sampling"], max_rounds=stage["max_rounds"],
    )  # fmt: skip
    loop.keep_groups(
        collected.groups.stored(),
        collected.rows,
        taken=rounds * stage["prompts"],
        abstained=collected.metrics["reward/abstained"],
    )
    return collected.metrics | promote(setting, loop, collected.metrics)


def fixed_order(run: Run, name: str) -> Callable[[int], int]:
    """The order of the examples, from an index to a place, if no curriculum promotes."""
    data, section = run.data_of(name), run.config["stages"][name]["curriculum"]
    if section["order"] == "sorted":
        return sorted_order(data.train, section["by"], run.seed)
    return data.order(data.train, run.seed)


def order_of(setting: Setting, loop: StageLoop) -> Callable[[int], int]:
    """The order of the examples as far as the curriculum has come."""
    if setting.curriculum is None:
        return setting.order
    memory = loop.cursor.setdefault("curriculum", START)
    return functools.partial(promoted_at, setting.curriculum, memory, setting.run.seed)


def promote(setting: Setting, loop: StageLoop, metrics: Mapping[str, float]) -> dict[str, float]:
    """Moves the curriculum on where the iteration allows it; the bucket that it was drawn from."""
    curriculum = setting.curriculum
    if curriculum is None:
        return {}
    value = metrics["right"]
    if setting.stage["curriculum"]["metric"] == "reward":
        low, high = total_range(setting.table)
        value = (metrics["reward/mean"] - low) / (high - low)
    before = loop.cursor["curriculum"]
    loop.cursor["curriculum"] = now = after(curriculum, before, value, loop.taken)
    if now["bucket"] > before["bucket"]:
        setting.run.progress.say(
            f"{setting.name} {loop.iteration + 1}/{loop.total}: bucket {now['bucket'] + 1} of "
            f"{len(curriculum.buckets)} from here on, {len(curriculum.buckets[now['bucket']])} "
            "harder examples"
        )
    return {"curriculum/level": before["bucket"] + 1.0}


def play_round(setting: Setting, loop: StageLoop, sampler: Sampler, number: int) -> Collected:
    """Completions by the policy as it stands, and what they are worth: (1) to (4)."""
    run, stage, P, G = setting.run, setting.stage, setting.stage["prompts"], setting.stage["group"]

    # (1) Sample G completions per prompt.
    data, tokenizer = run.data_of(setting.name), loop.policy.own_tokenizer
    place_of = order_of(setting, loop)
    examples = examples_from(data.train, place_of, loop.taken + number * P, P)
    prompts = [prompt_ids(tokenizer, example, data.template) for example in examples]
    rows_B = number * P * G + jnp.arange(P * G)
    rollout = sampler.sample(
        prompts, row_keys(run.seed, "train", loop.iteration, rows_B),
        sampling=stage["sampling"], group=G, max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip

    # (2) Score them on the host, and by models where rewards are theirs.
    texts, table = texts_of(rollout, tokenizer), setting.table
    repeated = [example for example in examples for _ in range(G)]
    batch = Batch(rollout.ids_BT, rollout.mask_BT, repeated, texts, loop.policy)
    given = {name: reward(batch) for name, reward in setting.given.items()}
    table = with_values(table, given, repeated)
    how = {"seconds": stage["reward_seconds"], "caller": setting.caller}
    scores = score(table, repeated, texts, **how)
    if stage["shuffle_rewards"]:
        scores = shuffled(scores, [run.seed, loop.iteration, number])

    # (3) The log-probs of the old policy, which is the one that samples, and of the reference.
    old_BC, ref_BC = old_and_reference(setting, loop.policy, rollout)

    # (4) Compare each with its group.
    advantage_PG, spread_P1 = advantages_of(setting, rollout, scores, old_BC, ref_BC)
    groups = groups_of(
        rollout._asdict(),
        {
            "advantage_B": advantage_PG.reshape(-1),
            "spread_B": jnp.repeat(spread_P1, G),
            "old_logprob_BC": old_BC if setting.needs.updates > 1 else None,
            "ref_logprob_BC": ref_BC,
        },
    )
    where = {"stage": setting.name, "step": loop.step, "iteration": loop.iteration}
    where["round"] = number  # groups are numbered within it
    shown = repeated, texts, rollout, scores, np.asarray(advantage_PG)
    return Collected(
        groups.each(np.asarray), rollout_metrics(*shown), rollout_rows(where, *shown, data.template)
    )


def old_and_reference(setting: Setting, policy: Policy, rollout: Rollout) -> tuple[Any, Any]:
    """old_logprob_BC and ref_logprob_BC of the tokens as sampled; None where not needed."""

    def by(policy: Policy) -> jax.Array:
        return setting.programs["log-probs"](policy.variables, rollout.ids_BT, rollout.mask_BT)

    old_BC = by(policy) if setting.needs.old else None
    return old_BC, by(setting.reference) if setting.reference is not None else None


def advantages_of(
    setting: Setting, rollout: Rollout, scores: Scores, old_BC: Any, ref_BC: Any
) -> tuple[jax.Array, jax.Array]:
    """advantage_PG, and spread_P1: whether the rewards of a group differ."""
    stage, objective = setting.stage, setting.needs.objective

    def by_group(x_B: Any) -> np.ndarray:
        return np.asarray(x_B).reshape(stage["prompts"], stage["group"])

    parts = {f: by_group(part_B) for f, part_B in scores.parts.items()}
    penalty_PG = None
    if setting.needs.penalty:
        mask_BC = rollout.completion_mask_BC
        penalty_PG = by_group(kl_penalty(old_BC, ref_BC, mask_BC, objective=objective))
    length_PG = by_group(np.asarray(rollout.length_B))
    return setting.advantages(by_group(scores.total), parts, length_PG, penalty_PG)
