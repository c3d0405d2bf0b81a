"""The reward models of a run: where a stage begins, and what it leaves."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.runs.policies import Policies, lora_of, prepared
from grpo.storage.snapshot import restore_part
from models.policy import Policy
from models.reward_model import RewardModel, init_head


def heads_of(stage: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The kinds of pairs that each head learns, () for all."""
    return dict(stage["heads"]) or {"score": ()}


def untrained(policy: Policy, stage: Mapping[str, Any]) -> RewardModel:
    """The reward model of a policy before its first update: it gives 0 to everything."""
    return RewardModel(policy=policy, head=init_head(policy.config, len(heads_of(stage))))


def reward_model_at_start(policies: Policies, name: str) -> RewardModel:
    """What a stage begins with: the end of another stage, with what is trained of it."""
    stage = policies.config["stages"][name]
    policy = policies.end(stage["policy"])
    policy = prepared(policy, lora_of(stage["lora"]), name, policies.config["seed"])
    return untrained(policy, stage)


def reward_model_at_end(policies: Policies, name: str) -> RewardModel:
    """What a stage has left."""
    start = reward_model_at_start(policies, name)
    return start.with_trained(restore_part(policies.final(name), "trainable", start.trainable))
