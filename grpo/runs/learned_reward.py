"""The reward of a reward model in a GRPO stage: `learned` in its table.

    r = clip((mean_h r_h - mean) / std, -clip, clip)

of the tokens as sampled. mean and std are those of the completions that the model was measured on,
and stay as they are; without `whitened` they are 0 and 1. A model below `least_accuracy` on
held-out pairs is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.examples import DataError
from grpo.data.nearest import nearest
from grpo.runs.given_rewards import Batch, Values
from grpo.runs.policies import Policies
from grpo.runs.reward_models import reward_model_at_end, untrained
from grpo.runs.shapes import shapes_at_start
from grpo.training.program import Program, Shape
from grpo.training.reward_losses import rewards_program
from models.policy import Policy
from models.reward_model import RewardModel

Config = Mapping[str, Any]
NAME = "learned"  # in a reward table


def options_of(stage: Config) -> Config:
    """The options of a stage's learned reward."""
    return stage["rewards"][NAME]["options"]


def about(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with a learned reward: its model, and its range."""
    options = options_of(stage)
    models = [name for name, one in config["stages"].items() if one["kind"] == "reward_model"]
    if (model := options["model"]) not in models:
        hint = nearest(model, models)
        yield f"rewards.learned.options.model={model!r}: is no stage of kind 'reward_model'{hint}"
    entry, clip = stage["rewards"][NAME], options["clip"]
    if not entry["low"] <= -clip <= clip <= entry["high"]:
        yield (
            f"rewards.learned.options.clip={clip}: expected a number above 0 with -clip and clip "
            f"in the declared range, {entry['low']} to {entry['high']}"
        )


def programs(
    config: Config, stage: Config, policy: Policy, rows: Sequence[Shape]
) -> dict[str, Program]:
    """What reads the completions of a rollout, for each shape of its rows."""
    trained = config["stages"][options_of(stage)["model"]]
    model = untrained(shapes_at_start(policy.base(), trained), trained)
    return {NAME: rewards_program(model, rows, stage["microbatches"] * stage["minibatches"])}


class Learned(NamedTuple):
    """A reward model that is used."""

    model: RewardModel
    program: Program
    mean: float
    std: float
    clip: float

    def __call__(self, batch: Batch) -> Values:
        """reward_B."""
        weights = self.model.policy.variables, self.model.head
        reward_BH = np.asarray(self.program(*weights, batch.ids_BT, batch.mask_BT))
        reward_B = (reward_BH.mean(axis=1) - self.mean) / self.std
        return Values(np.clip(reward_B, -self.clip, self.clip), {})


def learned_of(policies: Policies, name: str, programs: Mapping[str, Program]) -> Learned:
    """The reward model of a stage, if it is good enough."""
    options = options_of(policies.config["stages"][name])
    model, least = options["model"], options["least_accuracy"]
    found = json.loads((policies.workdir / "rewards" / f"{model}.json").read_text("utf-8"))
    if found["accuracy"] < least:
        raise DataError(
            f"stages.{name}: {model} is right about {found['accuracy']:.1%} of "
            f"{found['accuracy/count']} held-out pairs, rewards.learned.options.least_accuracy is "
            f"{least:.1%}: train it longer, or on more pairs"
        )
    whitened = options["whitened"]
    return Learned(
        model=reward_model_at_end(policies, model),
        program=programs[NAME],
        mean=found["reward/mean"] if whitened else 0.0,
        std=found["reward/std"] if whitened else 1.0,
        clip=options["clip"],
    )
