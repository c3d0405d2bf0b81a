"""Group Relative Policy Optimization (arXiv:2402.03300), one iteration after the other.

    (1) sample     o_1 … o_G ~ π_θ(· | q)                        for each of P prompts q
    (2) log-probs  log π_old, log π_ref and log π_T of the tokens as sampled
    (3) score      r_i = Σ_f weight_f · gate_f · reward_f(q, o_i)
    (4) compare    A_i = (r_i - mean r) / (std r + eps)          within the group of o_i
    (5) update     θ <- AdamW(θ, ∇L)                             `epochs` times, in minibatches

L is that of grpo/algorithms/losses.py; options of the loss may change (4) as well. With one update
per iteration π_old is π_θ itself, and the ratio of the two is 1. Which rounds of groups make an
iteration is said in grpo/rollout/collect.py.

π_T is a teacher, if there is one: the end of another stage, the base, or one of `models`. What it
says is in L as an advantage of each token, beside that of the rewards or, without any, alone.

With `staleness` 1 the next iteration's (1) and (2) come in the midst of (3): the policy writes
while judges read, one step off-policy (arXiv:2410.18252). Every batch but the first is then by the
policy as it was an iteration before, which is π_old: the ratio corrects for it. When a verdict
comes changes nothing: equal verdicts, equal runs.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups, groups_of
from grpo.algorithms.rewards_to_advantages import compiled_advantages
from grpo.checks.rules import (
    COUNT,
    CURRICULUM,
    FLAG,
    FROM_0,
    LOSS,
    NAMED,
    POSITIVE,
    SAMPLING,
    SHARE,
    TEXT,
    TRAINED,
    number,
    one_of,
    optional,
)
from grpo.checks.sections import (
    about_curriculum,
    about_diagnostics,
    about_groups,
    about_loss,
    about_reward_workers,
    about_rewards,
    about_rows,
    about_staleness,
    about_teacher,
    about_training,
)
from grpo.data.curriculum import Curriculum, curriculum_of
from grpo.data.examples import Example
from grpo.data.templates import prompt_ids
from grpo.diagnostics.by_reward import apart_of
from grpo.diagnostics.programs import Made, by_reward, forecast, is_due
from grpo.rewards.pool import caller_of
from grpo.rewards.scores import Caller, asked_about, score, shuffled
from grpo.rewards.table import Entry, fitted, reward_table, with_values
from grpo.rollout.ahead import Sampled, sampled_of
from grpo.rollout.collect import Collected, collect_rounds, examples_from
from grpo.rollout.compare import Compiled, compared, round_of
from grpo.rollout.frozen import Needs, frozen_logprobs, needs_of
from grpo.rollout.generate import Sampler, texts_of
from grpo.rollout.metrics import rollout_metrics
from grpo.rollout.rollouts_jsonl import rollout_rows, with_changes, with_tokens
from grpo.rollout.sampler import row_keys
from grpo.runs.curricula import Order, fixed_order, order_so_far, promote
from grpo.runs.given_rewards import Batch, Given, ask, given_to
from grpo.runs.iteration_programs import buckets_of, iteration_calls, iteration_programs
from grpo.runs.model_rewards import about_model_rewards, model_rewards_of
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.shapes import model_shapes
from grpo.runs.stage_loop import StageLoop
from grpo.training.batches import minibatch, rows_of_update
from grpo.training.program import Program
from models.policy import Policy
from models.sharding import put_rows

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
    "staleness": number(int, 0, 1),
    "reference": one_of("start", "base"),
    "teacher": optional(TEXT),
    "entropy": FLAG,
    "reward_seconds": POSITIVE,
    "reward_workers": number(int, 0, 256),
    "reward_batch_seconds": POSITIVE,
    "reward_memory": number(int, 512),
    "max_abstained": SHARE,
    "shuffle_rewards": FLAG,
    "forecast_every": FROM_0,
    "by_reward_every": FROM_0,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rewards(stage)
    yield from about_reward_workers(stage)
    yield from about_model_rewards(stage, config)
    yield from about_loss(stage)
    yield from about_teacher(stage)
    rows = stage["prompts"] * stage["group"]
    if stage["prompts"] % stage["minibatches"]:
        yield f"minibatches={stage['minibatches']}: does not divide prompts={stage['prompts']}"
    else:
        yield from about_rows(
            rows // stage["minibatches"], stage, config, "prompts * group / minibatches"
        )
    yield from about_groups(stage)
    yield from about_curriculum(stage, config)
    yield from about_staleness(stage)
    yield from about_diagnostics(stage)
    if stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: the completions of a group would be the same; expected more"


def build(
    config: Config, name: str, policy: Policy, teacher: Policy | None = None
) -> dict[str, Program]:
    """The programs of an iteration, for models that are there or for their shapes."""
    named = config["stages"][name]["teacher"]
    if named is not None and teacher is None:
        teacher = model_shapes(config, named, policy)
    return iteration_programs(config, name, policy, teacher)


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs, with one round in each iteration."""
    return iteration_calls(config, name)


class Setting(NamedTuple):
    """What stays the same through the stage."""

    run: Run
    name: str
    stage: Config
    needs: Needs
    table: dict[str, Entry]
    caller: Caller  # of the reward functions
    advantages: Compiled
    reference: Policy | None
    teacher: Policy | None
    given: Given  # rewards that models give
    programs: dict[str, Program]
    order: Order  # of the examples
    curriculum: Curriculum | None  # in whose place it is


class Asked(NamedTuple):
    """An update that is to be looked into."""

    collected: Collected
    before: Any  # what is trained


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    with opened(run, name, policies) as (setting, loop):
        loop.evaluate_at_start()
        while not loop.is_done:
            iterate(setting, loop)


@contextlib.contextmanager
def opened(run: Run, name: str, policies: Policies) -> Iterator[tuple[Setting, StageLoop]]:
    """The stage where it is, as long as what calls its reward functions is at work."""
    stage, start = run.config["stages"][name], policies.start(name)
    needs = needs_of(stage)
    table = reward_table({"name": f, **entry} for f, entry in stage["rewards"].items())
    teacher = policies.asked(stage["teacher"]) if needs.teacher else None
    programs, data = build(run.config, name, start, teacher), run.data_of(name)
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
            teacher=teacher,
            given=model_rewards_of(policies, name, programs, data.template, buckets),
            programs=programs,
            order=fixed_order(run, name),
            curriculum=curriculum_of(stage["curriculum"], data.train),
        )
        yield setting, loop


def iterate(setting: Setting, loop: StageLoop) -> None:
    """One iteration, or what is left of it."""
    # A run that was stopped between two updates has its groups already.
    collected = None if loop.groups else collect(setting, loop)
    for _ in range(loop.update, setting.needs.updates):
        learn(setting, loop, collected)
        collected = None  # its metrics are written once
        loop.evaluate_save_or_stop()


def learn(setting: Setting, loop: StageLoop, collected: Collected | None) -> None:
    """One update from its part of the groups that the loop has.

    The first one of an iteration has what was collected: its metrics go with the update's own, and
    what is asked of the update (grpo/diagnostics/) with them.
    """
    # (5) Update: epochs in minibatches, each weighed by itself.
    batch, asked = batch_of(setting, loop), asked_of(setting, loop, collected)
    state, metrics = setting.programs["update"](loop.state, loop.start.frozen, batch)
    if collected is not None:
        metrics = {**collected.metrics, **metrics}
    if asked is not None:
        metrics |= looked_into(setting, loop, asked, state.trainable, batch)
    loop.keep_update(state, metrics, loop.groups)
    is_last, following = divmod(loop.update + 1, setting.needs.updates)
    loop.move_to(loop.iteration + is_last, following)


def asked_of(setting: Setting, loop: StageLoop, collected: Collected | None) -> Asked | None:
    """What an update begins with that is to be looked into, copied: it takes its state."""
    every = setting.stage["forecast_every"], setting.stage["by_reward_every"]
    if collected is None or not any(is_due(each, loop.iteration) for each in every):
        return None
    return Asked(collected, jax.tree.map(jnp.copy, loop.state.trainable))


def looked_into(
    setting: Setting, loop: StageLoop, asked: Asked, after: Any, batch: Groups
) -> dict[str, float]:
    """The metrics of what is asked of an update; rows that wait for it are written."""
    stage, collected, found = setting.stage, asked.collected, {}
    made = Made(asked.before, after, loop.start.frozen, put_rows(batch, loop.policy.mesh))
    row_B = rows_of_batch(setting, loop, collected)
    if is_due(stage["forecast_every"], loop.iteration):
        found, changes = forecast(setting.programs, made)
        if setting.run.config["log"]["tokens"]:
            mask_BC = batch.completion_mask_BC
            loop.write_rollouts(with_changes(collected.rows, row_B, mask_BC, changes))
    if is_due(stage["by_reward_every"], loop.iteration):
        weights = {f: entry.weight for f, entry in setting.table.items()}
        how = {"limit": stage["max_new_tokens"], "objective": setting.needs.objective}
        apart = apart_of(collected.rounds, row_B, weights, **how)
        found |= by_reward(setting.programs, made, apart, loop.policy.compute_dtype)
    return found


def batch_of(setting: Setting, loop: StageLoop) -> Groups:
    """What the coming update learns from."""
    return minibatch(
        groups_of(loop.groups),
        loop.update,
        **cut_of(setting, loop),
        limit=setting.stage["max_new_tokens"],
        objective=setting.needs.objective,
    )


def cut_of(setting: Setting, loop: StageLoop) -> dict[str, Any]:
    """How the iteration is cut into the batches of its updates."""
    stage = setting.stage
    return {
        "group": stage["group"],
        "minibatches": stage["minibatches"],
        "order": (setting.run.seed, loop.iteration * stage["epochs"]),
    }


def rows_of_batch(setting: Setting, loop: StageLoop, collected: Collected) -> np.ndarray:
    """row_B: of the rows of the iteration's rounds, which ones the coming update learns from."""
    cut = cut_of(setting, loop)
    return collected.row_B[rows_of_update(loop.update, setting.stage["prompts"], **cut)]


def collect(setting: Setting, loop: StageLoop) -> Collected:
    """Gives the loop the groups of an iteration, in as many rounds as it takes."""
    stage, config, ahead = setting.stage, setting.run.config, {}
    sampler = Sampler(loop.policy, buckets_of(stage, config))

    def play(number: int) -> Collected:
        collected, following = play_round(setting, loop, sampler, number)
        ahead.update(following.stored() if following else {})
        loop.save_and_stop_if_asked()
        return collected

    collected, rounds = collect_rounds(
        play, prompts=stage["prompts"], group=stage["group"],
        dynamic_sampling=stage["dynamic_sampling"], max_rounds=stage["max_rounds"],
    )  # fmt: skip
    loop.keep_groups(
        collected.groups.stored(),
        collected.rows,
        ahead=ahead,
        taken=rounds * stage["prompts"],
        abstained=collected.metrics["reward/abstained"],
        waits=config["log"]["tokens"] and is_due(stage["forecast_every"], loop.iteration),
    )
    promoted = promote(setting.curriculum, setting.table, loop, collected.metrics)
    return collected._replace(metrics=collected.metrics | promoted)


def play_round(
    setting: Setting, loop: StageLoop, sampler: Sampler, number: int
) -> tuple[Collected, Sampled | None]:
    """Completions and what they are worth, (1) to (4); and the following ones, if already there."""
    run, stage, needs, G = setting.run, setting.stage, setting.needs, setting.stage["group"]

    # (1), (2) Sample, unless it was done an iteration ago, or before the run was stopped.
    if loop.ahead and number == 0:
        sampled = sampled_of(loop.ahead, loop.policy.mesh)
    else:
        sampled = sample(setting, loop, sampler, loop.iteration, number)
    if number == 0:
        loop.sampled = sampled.stored
    loop.save_and_stop_if_asked()
    rollout = sampled.rollout

    # (3) Score on the host, and by models where rewards are theirs; the policy may go on meanwhile.
    data, table = run.data_of(setting.name), setting.table
    texts = texts_of(rollout, loop.policy.own_tokenizer)
    examples = examples_of(setting, loop, loop.iteration, number)
    repeated = [example for example in examples for _ in range(G)]
    how = {"seconds": stage["reward_seconds"], "caller": setting.caller}
    asked = asked_about(table, repeated, texts, **how)
    batch = Batch(rollout.ids_BT, rollout.mask_BT, repeated, texts, loop.policy, asked)
    reading, following = ask(batch, setting.given), None
    if stage["staleness"] and loop.iteration + 1 < loop.total:
        following = sample(setting, loop, sampler, loop.iteration + 1, 0)
    given, of_models = given_to(reading, loop.save_and_stop_if_asked)
    table = with_values(table, given, repeated)
    scores = score(table, repeated, texts, **how)
    if stage["shuffle_rewards"]:
        scores = shuffled(scores, [run.seed, loop.iteration, number])

    # (4) Compare each with its group.
    scored = round_of(needs, sampled, scores, group=G)
    groups = compared(setting.advantages, needs, sampled, scored)
    where = {"stage": setting.name, "step": loop.step, "iteration": loop.iteration}
    where["round"] = number  # groups are numbered within it
    shown = repeated, texts, rollout, scores, groups.advantage_B.reshape(-1, G)
    metrics = rollout_metrics(*shown) | of_models
    if stage["staleness"]:
        metrics["staleness"] = float(loop.iteration - sampled.iteration)
    rows = rollout_rows(where, *shown, data.template)
    if run.config["log"]["tokens"]:
        rows = with_tokens(rows, groups, sampled.frozen.entropy_BC, loop.policy.own_tokenizer)
    return Collected(groups, metrics, rows, [scored], np.arange(len(rows))), following


def sample(
    setting: Setting, loop: StageLoop, sampler: Sampler, iteration: int, number: int
) -> Sampled:
    """Completions by the policy as it stands for a round of an iteration, and their log-probs."""
    run, stage, G = setting.run, setting.stage, setting.stage["group"]

    # (1) Sample G completions per prompt.
    tokenizer, template = loop.policy.own_tokenizer, run.data_of(setting.name).template
    examples = examples_of(setting, loop, iteration, number)
    prompts = [prompt_ids(tokenizer, example, template) for example in examples]
    rows_B = number * len(prompts) * G + jnp.arange(len(prompts) * G)
    rollout = sampler.sample(
        prompts, row_keys(run.seed, "train", iteration, rows_B),
        sampling=stage["sampling"], group=G, max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip

    # (2) The log-probs of the old policy, which is the one that samples, reference and teacher.
    policies = loop.policy, setting.reference, setting.teacher
    frozen = frozen_logprobs(setting.programs, setting.needs, *policies, rollout)
    return Sampled(rollout, frozen, loop.iteration)


def examples_of(setting: Setting, loop: StageLoop, iteration: int, number: int) -> list[Example]:
    """What a round of this iteration asks, or of a coming one: those before that have one round."""
    P, train = setting.stage["prompts"], setting.run.data_of(setting.name).train
    place_of = order_so_far(setting.order, setting.curriculum, loop)
    first = loop.taken + (iteration - loop.iteration + number) * P
    return examples_from(train, place_of, first, P)
