"""What a policy says of given tokens, and the losses made of that.

    logprob_BC = log π_θ(token | the tokens before it)      with the sampler's meaning of π

A loss is a function of (trainable, frozen, batch): the adapter on its frozen parameters, or the
parameters alone, and the rows of an update or of a part of it.
"""

import dataclasses
import functools
from typing import Any

import jax
from einops import rearrange
from jax.sharding import Mesh

from grpo.algorithms.groups import Groups
from grpo.algorithms.logprobs import AT_ONCE, token_logprobs
from grpo.algorithms.losses import policy_loss, supervised_loss
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import Objective
from grpo.algorithms.preference import Pairs, Preference, preference_loss
from grpo.data.packing import Rows
from grpo.training.parts import in_parts
from grpo.training.train_step import Loss
from models.forks import Fork, before_each, forked
from models.gemma import Gemma, logits_by
from models.policy import variables_of

Array = jax.Array
Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logprobs:
    """Log-probabilities as the trainer computes them, with the sampler's meaning of them."""

    module: Gemma
    temperature: float  # the sampler's
    with_entropy: bool
    entropy_learns: bool = True  # else it is only measured, which costs less
    vocab: int | None = None  # tokens that there are, if the table has more rows: another model's
    group: int = 1  # rows that follow each other and have one prompt, which is read once for them
    at_once: int = AT_ONCE  # logits that are made without a walk over the vocabulary

    def __call__(
        self, variables: dict[str, Tree], ids_BT: Array, mask_BT: Array, completion: int
    ) -> tuple[Array, Array | None]:
        """logprob_BC and entropy_BC of the last `completion` tokens of every row.

        The state at position t - 1 scores token t, so the last one scores nothing.
        """
        hidden_BCD = self.hidden(variables, ids_BT, mask_BT, completion)
        table_VD = variables["params"]["embedder"]["table"][: self.vocab]
        mesh = self.module.mesh
        return token_logprobs(
            functools.partial(logits_by, self.module.config),
            table_VD,
            hidden_BCD,
            ids_BT[:, -completion:],
            None if mesh else mask_BT[:, -completion:],
            temperature=self.temperature,
            with_entropy=self.with_entropy,
            entropy_learns=self.entropy_learns,
            at_once=self.at_once,
            **vocabulary_parts(mesh, len(ids_BT), table_VD),
        )

    def hidden(
        self, variables: dict[str, Tree], ids_BT: Array, mask_BT: Array, completion: int
    ) -> Array:
        """hidden_BCD: the states before the tokens of the completions."""
        if self.group == 1:
            hidden_BTD, _ = self.module.apply(variables, ids_BT, mask_BT)
            return hidden_BTD[:, -completion - 1 : -1]
        fork = Fork(self.group, completion)
        rows = forked(ids_BT, fork), forked(mask_BT, fork)
        hidden_PTD, _ = self.module.apply(variables, *rows, fork=fork)
        return before_each(hidden_PTD, fork)


def vocabulary_parts(mesh: Mesh | None, rows: int, table_VD: Array) -> dict[str, int]:
    """In how many parts the devices hold rows and a table: keywords of `token_logprobs`."""
    if mesh is None:
        return {}
    sizes = {"row_parts": (rows, "fsdp"), "table_parts": (len(table_VD), "tp")}
    return {
        name: mesh.shape[axis] if size % mesh.shape[axis] == 0 else 1
        for name, (size, axis) in sizes.items()
    }


@functools.lru_cache(maxsize=16)  # stages that are alike share a compiled update (train_step.py)
def make_policy_loss(logprobs: Logprobs, objective: Objective) -> Loss:
    """The loss that a GRPO stage brings to the train step."""

    def loss(trainable: Tree, frozen: Tree, groups: Groups) -> tuple[Array, Metrics]:
        completion = groups.completion_mask_BC.shape[1]
        variables = variables_of(trainable, frozen)
        logprob_BC, entropy_BC = logprobs(variables, groups.ids_BT, groups.mask_BT, completion)
        return policy_loss(logprob_BC, entropy_BC, groups, objective=objective)

    return loss


@functools.lru_cache(maxsize=16)
def make_supervised_loss(logprobs: Logprobs) -> Loss:
    """The loss that an SFT stage brings to the train step."""

    def loss(trainable: Tree, frozen: Tree, rows: Rows) -> tuple[Array, Metrics]:
        completion = rows.weight_BC.shape[1]
        variables = variables_of(trainable, frozen)
        logprob_BC, _ = logprobs(variables, rows.ids_BT, rows.mask_BT, completion)
        return supervised_loss(logprob_BC, rows.weight_BC)

    return loss


@functools.lru_cache(maxsize=16)
def make_preference_loss(logprobs: Logprobs, objective: Preference) -> Loss:
    """The loss that a preference stage brings to the train step."""

    def loss(trainable: Tree, frozen: Tree, pairs: Pairs) -> tuple[Array, Metrics]:
        ids_BT, mask_BT = (
            rearrange(x, "p two t -> (p two) t") for x in (pairs.ids_P2T, pairs.mask_P2T)
        )
        completion = pairs.completion_mask_P2C.shape[2]
        logprob_BC, _ = logprobs(variables_of(trainable, frozen), ids_BT, mask_BT, completion)
        logprob_P2C = rearrange(logprob_BC, "(p two) c -> p two c", two=2)
        return preference_loss(logprob_P2C, pairs, objective=objective)

    return loss


@functools.partial(jax.jit, static_argnames=("logprobs", "completion", "parts"))
def logprobs_of_rows(
    variables: dict[str, Tree],
    ids_BT: Array,
    mask_BT: Array,
    *,
    logprobs: Logprobs,
    completion: int,
    parts: int,
) -> Array:
    """logprob_BC of many rows."""

    def one(ids_BT: Array, mask_BT: Array) -> Array:
        return logprobs(variables, ids_BT, mask_BT, completion)[0]

    return in_parts(one, ids_BT, mask_BT, parts=parts, group=logprobs.group)
