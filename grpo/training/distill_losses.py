"""What a distillation stage brings to the train step, and what a teacher says of rows."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh

from grpo.algorithms.distillation import (
    Distillation,
    Taught,
    distillation_loss,
    tail_divergence,
)
from grpo.algorithms.distribution import temper
from grpo.algorithms.divergence import token_divergence
from grpo.algorithms.logprobs import token_logprobs
from grpo.algorithms.metrics import Metrics
from grpo.training.logprobs import vocabulary_parts
from grpo.training.parts import in_parts
from grpo.training.program import shapes_on
from grpo.training.train_step import Loss
from models.config import GemmaConfig
from models.gemma import Gemma, logits_by
from models.policy import Policy, variables_of
from models.sharding import put

Array = jax.Array
Tree = Any
BLOCK = 64  # tokens whose logits a teacher sorts at a time


class Student(NamedTuple):
    """What is trained, and what stays: the rest of the student, and the teacher's table."""

    trainable: Tree
    frozen: Tree
    mesh: Mesh | None


def student_of(policy: Policy, teacher: Policy, objective: Distillation) -> Student:
    """A policy beside its teacher, whose table has the student's rows."""
    frozen = {"student": policy.frozen}
    if not objective.top_k:
        frozen["teacher"] = table_beside(policy, teacher)
    return Student(policy.trainable, frozen, policy.mesh)


def table_beside(policy: Policy, teacher: Policy) -> Tree:
    """A teacher's table where the policy is, as many rows as that has tokens; of shapes, shapes."""
    V, table_VD = policy.config.vocab_size, teacher.params["embedder"]["table"]
    is_shape = isinstance(table_VD, jax.ShapeDtypeStruct)
    if table_VD.shape[0] != V:
        table_VD = table_VD.update(shape=(V, *table_VD.shape[1:])) if is_shape else table_VD[:V]
    table = {"embedder": {"table": table_VD}}
    if teacher.mesh == policy.mesh:
        return table
    return shapes_on(policy.mesh, table) if is_shape else put(table, policy.mesh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
    """The two models of a loss, and the options."""

    module: Gemma  # the student's
    teacher: GemmaConfig
    objective: Distillation

    def __call__(self, trainable: Tree, frozen: Tree, rows: Taught) -> tuple[Array, Metrics]:
        """The loss of some rows."""
        objective, C = self.objective, rows.weight_BC.shape[1]
        variables = variables_of(trainable, frozen["student"])
        hidden_BTD, _ = self.module.apply(variables, rows.ids_BT, rows.mask_BT)
        hidden_BCD, target_BC = hidden_BTD[:, -C - 1 : -1], rows.ids_BT[:, -C:]
        table_VD = variables["params"]["embedder"]["table"]
        unembed = functools.partial(logits_by, self.module.config)
        parts: dict[str, Any] = vocabulary_parts(self.module.mesh, len(target_BC), table_VD)
        mask_BC = None if self.module.mesh else rows.mask_BT[:, -C:]

        def logprobs(temperature: float) -> Array:
            return token_logprobs(
                unembed, table_VD, hidden_BCD, target_BC, mask_BC,
                temperature=temperature, with_entropy=False, **parts,
            )[0]  # fmt: skip

        if not objective.top_k:
            divergence_BC = token_divergence(
                unembed,
                functools.partial(logits_by, self.teacher),
                (table_VD, frozen["teacher"]["embedder"]["table"]),
                hidden_BCD,
                rows.teacher_BCD,
                mask_BC,
                beta=objective.beta,
                temperature=objective.temperature,
                **parts,
            )
        else:
            # log π of any token is that of the target, and the difference of their logits.
            logprob_BC = logprobs(objective.temperature)
            ids_BCK = jnp.concatenate([target_BC[..., None], rows.top_ids_BCK], axis=-1)
            z_BCK = temper(self.some_logits(table_VD, hidden_BCD, ids_BCK), objective.temperature)
            top_BCK = z_BCK[..., 1:] - z_BCK[..., :1] + logprob_BC[..., None]
            divergence_BC = tail_divergence(objective.beta, top_BCK, rows.top_logprob_BCK)
        targets_BC = logprobs(1.0) if objective.sft_coef else None
        return distillation_loss(divergence_BC, targets_BC, rows, objective=objective)

    def some_logits(self, table_VD: Array, hidden_BCD: Array, ids_BCK: Array) -> Array:
        """logits_BCK of some tokens."""

        def one(rows_KD: Array, hidden_D: Array) -> Array:
            return logits_by(self.module.config, rows_KD, hidden_D[None])[0]

        return jax.vmap(jax.vmap(one))(table_VD[ids_BCK], hidden_BCD)


@functools.lru_cache(maxsize=16)  # stages that are alike share a compiled update (train_step.py)
def make_distillation_loss(lesson: Lesson) -> Loss:
    """The loss that a distillation stage brings to the train step."""
    return lambda trainable, frozen, rows: lesson(trainable, frozen, rows)


@functools.partial(
    jax.jit, static_argnames=("module", "vocab", "completion", "temperature", "top_k", "parts")
)
def lessons_of_rows(
    variables: dict[str, Tree],
    ids_BT: Array,
    mask_BT: Array,
    *,
    module: Gemma,
    vocab: int,
    completion: int,
    temperature: float,
    top_k: int,
    parts: int,
) -> Mapping[str, Array]:
    """What a teacher says of many rows, by the fields of `Taught`.

    Its hidden states; or its `top_k` likeliest ones of the first `vocab` tokens, with their
    log-probs.
    """

    def one(ids_BT: Array, mask_BT: Array) -> Any:
        hidden_BTD, _ = module.apply(variables, ids_BT, mask_BT)
        hidden_BCD = hidden_BTD[:, -completion - 1 : -1]
        if not top_k:
            return {"teacher_BCD": hidden_BCD}
        table_VD = variables["params"]["embedder"]["table"][:vocab]

        def top(hidden_ND: Array) -> dict[str, Array]:
            z_NV = temper(logits_by(module.config, table_VD, hidden_ND), temperature)
            z_NK, ids_NK = jax.lax.top_k(z_NV, top_k)
            logprob_NK = z_NK - jax.nn.logsumexp(z_NV, axis=1, keepdims=True)
            return {"top_ids_BCK": ids_NK, "top_logprob_BCK": logprob_NK}

        B, C, D = hidden_BCD.shape
        tokens_ND = jnp.pad(hidden_BCD.reshape(B * C, D), ((0, -(B * C) % BLOCK), (0, 0)))
        found = jax.lax.map(top, rearrange(tokens_ND, "(m n) d -> m n d", n=BLOCK))
        found = jax.tree.map(lambda x: rearrange(x, "m n k -> (m n) k")[: B * C], found)
        return jax.tree.map(lambda x: rearrange(x, "(b c) k -> b c k", b=B), found)

    return in_parts(one, ids_BT, mask_BT, parts=parts)
