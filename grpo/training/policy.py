"""What a policy says of completions: teacher-forced log-probabilities, and the losses made of them.

A policy is a module with parameters and perhaps an adapter: {"params", "lora"}. Its reference is
the same parameters without the adapter, or a frozen copy of its own.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from grpo.algorithms.logprobs import chunk_size, token_logprobs
from grpo.algorithms.losses import Experience, policy_loss
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import Objective
from models.gemma import Gemma, unembed

Array = jax.Array
Tree = Any


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
