"""A reward model: a Gemma that reads a completion, and a head that says what it is worth.

    r_h = w_h · x + b_h      x: the final hidden state of the completion's last token

One number per head h. What is trained are the head and what the policy below it trains: all
parameters, or an adapter.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.config import GemmaConfig
from models.gemma import Gemma
from models.policy import Policy
from models.tokenizer import Tokenizer

Array = jax.Array
Params = Any


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RewardModel:
    """A policy whose hidden states are read, and the head."""

    policy: Policy
    head: Params

    @property
    def trainable(self) -> Params:
        """What is trained."""
        return {"policy": self.policy.trainable, "head": self.head}

    @property
    def frozen(self) -> Params | None:
        """What is not."""
        return self.policy.frozen

    @property
    def mesh(self) -> Mesh | None:
        """The devices."""
        return self.policy.mesh

    @property
    def module(self) -> Gemma:
        """The linen module below the head."""
        return self.policy.module

    @property
    def own_tokenizer(self) -> Tokenizer:
        """The tokenizer of the texts it reads."""
        return self.policy.own_tokenizer

    def with_trained(self, trainable: Params) -> "RewardModel":
        """The model with other values for what is trained."""
        policy = self.policy.with_trained(trainable["policy"])
        return RewardModel(policy=policy, head=trainable["head"])


def init_head(config: GemmaConfig, heads: int) -> Params:
    """A head that gives 0 to everything."""
    return {"w": jnp.zeros((config.width, heads)), "b": jnp.zeros(heads)}


@dataclasses.dataclass(frozen=True)
class Rewards:
    """The rewards of rows of prompts and completions."""

    module: Gemma

    def __call__(
        self, variables: dict[str, Params], head: Params, ids_BT: Array, mask_BT: Array
    ) -> Array:
        """reward_BH, in float32."""
        hidden_BTD, _ = self.module.apply(variables, ids_BT, mask_BT)
        last_B = mask_BT.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1] != 0, axis=1)
        hidden_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
        return hidden_BD.astype(jnp.float32) @ head["w"] + head["b"][None]
