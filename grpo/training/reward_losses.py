"""What a reward model's stage brings to the train step, and the rewards of many rows."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from einops import rearrange

from grpo.algorithms.metrics import Metrics
from grpo.algorithms.reward_modeling import Compared, Valued, compared_loss, valued_loss
from grpo.training.parts import in_parts
from grpo.training.program import Program, Shape
from grpo.training.train_step import Loss
from models.policy import variables_of
from models.reward_model import RewardModel, Rewards

Array = jax.Array
Tree = Any


@functools.lru_cache(maxsize=16)
def make_compared_loss(rewards: Rewards, *, margin_coef: float, centre: float) -> Loss:
    """Of pairs."""

    def loss(trainable: Tree, frozen: Tree, pairs: Compared) -> tuple[Array, Metrics]:
        variables = variables_of(trainable["policy"], frozen)
        ids_BT, mask_BT = (
            rearrange(x, "p two t -> (p two) t") for x in (pairs.ids_P2T, pairs.mask_P2T)
        )
        reward_BH = rewards(variables, trainable["head"], ids_BT, mask_BT)
        reward_P2H = rearrange(reward_BH, "(p two) h -> p two h", two=2)
        return compared_loss(reward_P2H, pairs, margin_coef=margin_coef, centre=centre)

    return loss


@functools.lru_cache(maxsize=16)
def make_valued_loss(rewards: Rewards, *, regression: str) -> Loss:
    """Of completions with values."""

    def loss(trainable: Tree, frozen: Tree, rows: Valued) -> tuple[Array, Metrics]:
        variables = variables_of(trainable["policy"], frozen)
        reward_BH = rewards(variables, trainable["head"], rows.ids_BT, rows.mask_BT)
        return valued_loss(reward_BH, rows, regression=regression)

    return loss


@functools.partial(jax.jit, static_argnames=("rewards", "parts"))
def rewards_of_rows(
    variables: dict[str, Tree],
    head: Tree,
    ids_BT: Array,
    mask_BT: Array,
    *,
    rewards: Rewards,
    parts: int,
) -> Array:
    """reward_BH of many rows."""
    return in_parts(functools.partial(rewards, variables, head), ids_BT, mask_BT, parts=parts)


def rewards_program(model: RewardModel, rows: Sequence[Shape], parts: int) -> Program:
    """What reads rows of prompts and completions, for each of their shapes."""
    cases = tuple((model.policy.variables, model.head, x_BT, x_BT) for x_BT in rows)
    return Program(rewards_of_rows, cases, {"rewards": Rewards(model.module), "parts": parts})
