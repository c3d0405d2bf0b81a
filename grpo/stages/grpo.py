"""Group Relative Policy Optimization (arXiv:2402.03300), one iteration after the other.

    (1) sample     o_1 … o_G ~ π_θ(· | q)                        for each of P prompts q
    (2) score      r_i = Σ_f weight_f · gate_f · reward_f(q, o_i)
    (3) freeze     log π_old and log π_ref of the tokens as sampled
    (4) compare    A_i = (r_i - mean r) / (std r + eps)          within the group of o_i
    (5) update     θ <- AdamW(θ, ∇L)                             `epochs` times, in minibatches

L is that of grpo/algorithms/losses.py; options of the loss may change (4) as well. With one update
per iteration π_old is π_θ itself, and the ratio of the two is 1.

Dynamic sampling (DAPO, arXiv:2503.14476) leaves out the groups in which no completion is better
than another ("drop"), and draws new prompts in their place ("refill"), for `max_rounds` rounds at
most; places that stay empty count in no mean.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.compare import compare, spread
from grpo.algorithms.losses import kl_penalty
from grpo.algorithms.presets import objective_of
from grpo.data.order import example_at
from grpo.rewards.compose import gated, reward_table, score, shuffled
from grpo.rollout.generate import Sampler
from grpo.rollout.metrics import mean_of, rollout_metrics, rollout_rows
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.stage_loop import Course
from grpo.training.batches import Groups, choose, has_spread, minibatch
from grpo.training.scoring import Scorer, make_policy_loss, score_rows
from grpo.training.train_step import make_train_step


class Round(NamedTuple):
    """P groups of completions, and what is told of them."""

    groups: Groups
    metrics: dict[str, float]
    rows: list[dict[str, Any]]


def grpo(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    config = run.config["stages"][name]
    P, G, C = config["prompts"], config["group"], config["max_new_tokens"]
    updates = config["epochs"] * config["minibatches"]
    objective = objective_of(config["loss"])
    table = reward_table({"name": f, **entry} for f, entry in config["rewards"].items())
    start = policies.start(name)
    reference = policies.reference(name, start) if objective.kl_coef > 0 else None
    scorer = Scorer(
        module=run.module(start),
        temperature=config["sampling"]["temperature"],
        with_entropy=config["entropy"],
    )
    course = Course(run, name, start, config["iterations"], updates)
    update_policy = make_train_step(
        make_policy_loss(scorer, objective, is_adapter=start.adapter is not None),
        course.optimizer,
        microbatches=config["microbatches"],
        state=course.state,
        frozen=start.frozen,
        rows=P * G // config["minibatches"],
        mesh=run.mesh,
    )
    logprobs = functools.partial(
        score_rows, scorer, completion=C, parts=config["microbatches"] * config["minibatches"]
    )
    # Rounds of one iteration stand side by side: all of them need the same number of columns.
    buckets = run.config["data"]["buckets"]
    buckets = buckets if config["max_rounds"] == 1 else (max(buckets),)
    is_kl_in_reward = objective.kl_in == "reward" and objective.kl_coef > 0

    def play(sampler: Sampler, number: int) -> Round:
        """Completions by the policy as it stands, and what they are worth: (1) to (4)."""
        first = course.cursor["taken"] + number * P
        size = len(run.data.train)
        examples = [run.data.train[example_at(run.seed, first + p, size)] for p in range(P)]

        # (1) Sample G completions per prompt.
        told = sampler.sample(
            examples, purpose="train", step=course.iteration, first_row=number * P * G,
            sampling=config["sampling"], group=G, max_new_tokens=C,
        )  # fmt: skip

        # (2) Score them on the host.
        repeated = [example for example in examples for _ in range(G)]
        scores = score(table, repeated, told.texts, seconds=config["reward_seconds"])
        if config["shuffle_rewards"]:
            scores = shuffled(scores, [run.seed, course.iteration, number])

        # (3) Freeze the old and the reference log-probs.
        (ids_BT, mask_BT), mask_BC = told.tokens, told.rollout.completion_mask_BC
        old_BC = ref_BC = penalty_PG = None
        if updates > 1 or is_kl_in_reward:
            old_BC = logprobs(course.policy.variables, ids_BT, mask_BT)
        if reference is not None:
            ref_BC = logprobs(reference, ids_BT, mask_BT)

        # (4) Compare each with its group.
        reward_PG = jnp.asarray(scores.total).reshape(P, G)
        reward_by_name = {
            f: jnp.asarray(part_B).reshape(P, G)
            for f, part_B in gated(scores.rewards, table).items()
        }
        weights = {f: entry.weight for f, entry in table.items()}
        if is_kl_in_reward and old_BC is not None and ref_BC is not None:
            penalty_B = kl_penalty(old_BC, ref_BC, mask_BC, objective=objective)
            penalty_PG = penalty_B.reshape(P, G)
        advantage_PG = compare(
            reward_PG,
            reward_by_name,
            weights,
            jnp.asarray(told.length_B).reshape(P, G),
            penalty_PG,
            limit=C,
            objective=objective,
        )
        groups = Groups(
            ids_BT=ids_BT,
            mask_BT=mask_BT,
            mask_BC=mask_BC,
            truncated_B=told.truncated_B,
            advantage_B=advantage_PG.reshape(-1),
            spread_B=jnp.repeat(spread(reward_PG, reward_by_name, weights, objective=objective), G),
            sample_logprob_BC=told.rollout.sample_logprob_BC,
            old_logprob_BC=old_BC if updates > 1 else None,
            ref_logprob_BC=ref_BC,
        )
        where = {
            "stage": name,
            "step": course.step,
            "iteration": course.iteration,
            "round": number,  # groups are numbered within it
        }
        return Round(
            groups.on_host(),
            rollout_metrics(repeated, told, scores, np.asarray(advantage_PG)),
            rollout_rows(where, repeated, told, scores, np.asarray(advantage_PG), run.template),
        )

    def collect() -> dict[str, float]:
        """The groups of an iteration, in as many rounds as it takes; what is told of them."""
        sampler, rounds, useful = Sampler(run, course.policy, buckets), [], 0
        while len(rounds) < config["max_rounds"] and useful < P:
            rounds.append(play(sampler, len(rounds)))
            useful += int(has_spread(rounds[-1].groups, G).sum())
            course.pause()
        groups = rounds[0].groups
        if config["dynamic_sampling"] != "off":
            groups = choose([round.groups for round in rounds], G)
        metrics = mean_of([round.metrics for round in rounds])
        rows = [row for round in rounds for row in round.rows]
        taken = len(rounds) * P
        course.gathered(groups.stored(), rows, taken, metrics["reward/abstained"])
        return metrics

    course.begin()
    while not course.is_done:
        # A run that was stopped between two updates has its groups already.
        of_rollout = {} if course.pending else collect()
        groups = Groups(**course.pending)

        # (5) Update: epochs in minibatches, each frozen by itself.
        for update in range(course.cursor["update"], updates):
            batch = minibatch(
                groups,
                update,
                group=G,
                minibatches=config["minibatches"],
                order=(run.seed, course.iteration * config["epochs"]),
                limit=C,
                objective=objective,
            )
            state, metrics = update_policy(course.state, start.frozen, batch)
            course.updated(state, {**of_rollout, **metrics}, groups.stored())
            of_rollout, done = {}, update + 1  # told once
            course.advance(course.iteration + done // updates, done % updates)
