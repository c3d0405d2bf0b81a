"""A policy, what it says of completions, and the losses made of that.

A policy is parameters and perhaps an adapter: {"params", "lora"}. What is trained is the adapter
where there is one, else the parameters. Its reference is the same parameters without the adapter,
or a frozen copy of its own.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from grpo.algorithms.logprobs import chunk_size, token_logprobs
from grpo.algorithms.losses import Experience, policy_loss, supervised_loss
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import Objective
from grpo.data.packing import Rows
from models.gemma import Gemma, unembed
from models.lora import LoraConfig

Array = jax.Array
Tree = Any


class Policy(NamedTuple):
    """Parameters and perhaps an adapter to them, with the config that says how it is applied."""

    params: Tree
    lora: LoraConfig | None = None
    adapter: Tree | None = None

    @property
    def trainable(self) -> Tree:
        """What a stage trains."""
        return self.params if self.adapter is None else self.adapter

    @property
    def frozen(self) -> Tree | None:
        """What it does not."""
        return None if self.adapter is None else self.params

    @property
    def variables(self) -> dict[str, Tree]:
        """The module's collections."""
        return variables_of(self.trainable, self.frozen, is_adapter=self.adapter is not None)

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by."""
        return self.lora.scale if self.lora else 0.0

    def with_trained(self, trainable: Tree) -> "Policy":
        """The policy with other values for what is trained."""
        part = "params" if self.adapter is None else "adapter"
        return self._replace(**{part: trainable})


class Batch(NamedTuple):
    """Rows of prompt and completion, and what is to be learnt from them."""

    ids_BT: Array  # T = I + C
    mask_BT: Array
    experience: Experience


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """Log-probabilities as the trainer computes them, with the sampler's meaning of them."""

    module: Gemma
    temperature: float  # the sampler's
    with_entropy: bool

    def __call__(
        self, variables: dict[str, Tree], ids_BT: Array, mask_BT: Array, completion: int
    ) -> tuple[Array, Array | None]:
        """logprob_BC and entropy_BC of the last `completion` tokens of every row.

        The state at position t - 1 scores token t, so the last one scores nothing.
        """
        hidden_BTD, _ = self.module.apply(variables, ids_BT, mask_BT)
        mesh = self.module.mesh
        rows, parts = ids_BT.shape[0], mesh.shape["fsdp"] if mesh else 1
        rows = rows // parts if rows % parts == 0 else rows  # on one device
        return token_logprobs(
            functools.partial(unembed, self.module.config),
            {"embedder": variables["params"]["embedder"]},
            hidden_BTD[:, -completion - 1 : -1],
            ids_BT[:, -completion:],
            temperature=self.temperature,
            chunk=chunk_size(rows, self.module.config.vocab_size),
            with_entropy=self.with_entropy,
        )


def variables_of(trainable: Tree, frozen: Tree, *, is_adapter: bool) -> dict[str, Tree]:
    """The module's collections: an adapter on frozen parameters, or trainable parameters."""
    return {"params": frozen, "lora": trainable} if is_adapter else {"params": trainable}


def make_policy_loss(scorer: Scorer, objective: Objective, *, is_adapter: bool):
    """The loss that a GRPO stage brings to the train step."""

    def loss(trainable: Tree, frozen: Tree, batch: Batch) -> tuple[Array, Metrics]:
        variables = variables_of(trainable, frozen, is_adapter=is_adapter)
        completion = batch.experience.mask_BC.shape[1]
        logprob_BC, entropy_BC = scorer(variables, batch.ids_BT, batch.mask_BT, completion)
        return policy_loss(logprob_BC, entropy_BC, batch.experience, objective=objective)

    return loss


def make_supervised_loss(scorer: Scorer, *, is_adapter: bool):
    """The loss that an SFT stage brings to the train step."""

    def loss(trainable: Tree, frozen: Tree, rows: Rows) -> tuple[Array, Metrics]:
        variables = variables_of(trainable, frozen, is_adapter=is_adapter)
        completion = rows.weight_BC.shape[1]
        logprob_BC, _ = scorer(variables, rows.ids_BT, rows.mask_BT, completion)
        return supervised_loss(logprob_BC, rows.weight_BC)

    return loss


@functools.partial(jax.jit, static_argnames=("scorer", "completion", "parts"))
def score_rows(
    scorer: Scorer,
    variables: dict[str, Tree],
    ids_BT: Array,
    mask_BT: Array,
    *,
    completion: int,
    parts: int,
) -> Array:
    """logprob_BC of many rows, every `parts`-th of them at a time, to bound the memory."""

    def cut(x: Array) -> Array:
        filled = jnp.pad(x, ((0, -x.shape[0] % parts), (0, 0)))
        return rearrange(filled, "(b m) t -> m b t", m=parts)

    def one(rows: tuple[Array, Array]) -> Array:
        return scorer(variables, *rows, completion)[0]

    logprob_MBC = jax.lax.map(one, (cut(ids_BT), cut(mask_BT)))
    return rearrange(logprob_MBC, "m b c -> (b m) c")[: ids_BT.shape[0]]
