"""The rewards of a GRPO stage that models give: the entries of GIVEN in its table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo.data.templates import Template
from grpo.runs import judged_reward, learned_reward, reference_reward
from grpo.runs.given_rewards import Given, Reward
from grpo.runs.policies import Policies
from grpo.runs.reference_reward import ReferenceProbability
from grpo.training.program import Program, Shape
from models.policy import Policy

Config = Mapping[str, Any]


def about_model_rewards(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with them."""
    if learned_reward.NAME in stage["rewards"]:
        yield from learned_reward.about(stage, config)
    if reference_reward.NAME in stage["rewards"]:
        yield from reference_reward.about(stage)
    yield from judged_reward.about(stage, config)


def model_reward_programs(
    config: Config, stage: Config, policy: Policy, rows: Sequence[Shape], buckets: Sequence[int]
) -> dict[str, Program]:
    """What reads the completions of a rollout, whose rows have these shapes."""
    found = {}
    if learned_reward.NAME in stage["rewards"]:
        found |= learned_reward.programs(config, stage, policy, rows)
    if reference_reward.NAME in stage["rewards"]:
        found |= reference_reward.programs(stage, policy, buckets)
    return found | judged_reward.programs(config, stage, policy)


def model_reward_calls(config: Config, stage: Config) -> dict[str, int | None]:
    """How often each of them runs in the stage, with one round in each iteration."""
    once = dict.fromkeys((learned_reward.NAME, reference_reward.NAME), stage["iterations"])
    return {**once, **judged_reward.calls(config, stage)}


def model_rewards_of(
    policies: Policies,
    name: str,
    programs: Mapping[str, Program],
    template: Template,
    buckets: Sequence[int],
) -> Given:
    """What gives them."""
    stage, found = policies.config["stages"][name], {}
    if learned_reward.NAME in stage["rewards"]:
        learned = learned_reward.learned_of(policies, name, programs)
        found[learned_reward.NAME] = Reward(learned, elsewhere=False)
    if reference_reward.NAME in stage["rewards"]:
        program = programs[reference_reward.NAME]
        likely = ReferenceProbability(program, stage, template, buckets)
        found[reference_reward.NAME] = Reward(likely, elsewhere=False)
    return found | judged_reward.judged_of(policies, name, programs)
