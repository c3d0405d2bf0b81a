"""Losses of a student that learns from a teacher's distributions (arXiv:1503.02531, 2306.13649).

    L = coef Σ_t weight_t D_β(p_t, q_t) - sft_coef Σ_t target_weight_t log π(target_t)

    D_β    grpo/algorithms/divergence.py, of softmax(z / T) of student and teacher
    the second sum is over solutions out of the data, at T = 1; the student's own samples are no
    targets

over the tokens of an update. A share `student_share` of the updates learns from completions of the
student as it stands, the others from the data's solutions ("on-policy" and "off-policy"). Of Tunix'
α and T: coef = α T², sft_coef = 1 - α.

With `top_k` the teacher tells the K likeliest tokens only, and what they leave is one more token:

    D_β over p_1 … p_K, 1 - Σ p_k    and the same tokens' t_1 … t_K, 1 - Σ t_k

which is at most D_β over the whole vocabulary, and needs no more of the teacher than [B, C, K].
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms.divergence import summands
from grpo.algorithms.masked import inside, masked_sum
from grpo.algorithms.metrics import Metrics

Array = jax.Array
QUARTERS = 4  # of the longest completion, in which the divergence is told apart
CERTAIN = -1e-6  # log Σ p_k at most: a tail of 1e-6 has a logarithm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """The options of an update."""

    beta: float
    temperature: float  # T
    student_share: float
    coef: float
    sft_coef: float
    top_k: int  # of the teacher's tokens; 0: the whole vocabulary

    def __post_init__(self):
        if problems := self.problems():
            raise ValueError("; ".join(problems))

    @staticmethod
    def idle(fields: Any) -> set[str]:
        """No field makes another one idle."""
        return set()

    def problems(self) -> list[str]:
        """Everything that is wrong, a line each."""
        bounds = {"beta": 1.0, "student_share": 1.0, "coef": math.inf, "sft_coef": math.inf}
        found = [
            f"{field}={getattr(self, field)}: expected a number from 0 on, at most {high}"
            for field, high in bounds.items()
            if not 0 <= getattr(self, field) <= high or getattr(self, field) == math.inf
        ]
        if not 0 < self.temperature < math.inf:
            found.append(f"temperature={self.temperature}: expected more than 0")
        if self.top_k < 0:
            found.append(f"top_k={self.top_k}: expected 1 or more, or 0")
        if not found and self.coef == self.sft_coef == 0:
            found.append("coef=0 with sft_coef=0: nothing would be learnt")
        if not found and self.coef == 0 and self.student_share:
            found.append(
                f"student_share={self.student_share} with coef=0: the student's own completions "
                "would teach nothing: set it to 0"
            )
        return found


class Taught(NamedTuple):
    """The rows of an update, with what the teacher says of them."""

    ids_BT: Any
    mask_BT: Any
    weight_BC: Any  # of the divergence: 1 / (tokens of the update)
    target_weight_BC: Any  # of the log-likelihood; 0 in completions of the student
    place_BC: Any  # 1 / (tokens of the update in the same quarter of positions)
    teacher_BCD: Any = None  # its hidden states, where the whole vocabulary counts
    top_ids_BCK: Any = None  # its likeliest tokens, and their log-probs at temperature T
    top_logprob_BCK: Any = None


def with_weights(rows: Taught, is_own: Any) -> Taught:
    """The rows of an update weighed, given their tokens as `weight_BC`: 1 or 0."""
    counts_BC = rows.weight_BC
    C = counts_BC.shape[1]
    quarter_C = jnp.arange(C) * QUARTERS // C
    of_quarter_Q = jnp.zeros(QUARTERS).at[quarter_C].add(jnp.sum(counts_BC, axis=0))
    weight_BC = counts_BC / jnp.maximum(jnp.sum(counts_BC), 1)
    return rows._replace(
        weight_BC=weight_BC,
        target_weight_BC=jnp.where(is_own, 0.0, weight_BC),
        place_BC=counts_BC / jnp.maximum(of_quarter_Q[quarter_C], 1)[None],
    )


def tail_divergence(beta: float, logprob_BCK: Array, teacher_BCK: Array) -> Array:
    """D_β over K tokens and what they leave, as one more."""

    def with_tail(x_BCK: Array) -> Array:
        total_BC1 = jax.nn.logsumexp(x_BCK, axis=-1, keepdims=True)
        tail_BC1 = jnp.log1p(-jnp.exp(jnp.minimum(total_BC1, CERTAIN)))
        return jnp.concatenate([x_BCK, tail_BC1], axis=-1)

    teacher = jax.lax.stop_gradient(with_tail(teacher_BCK))
    return jnp.sum(summands(beta, with_tail(logprob_BCK), teacher)[0], axis=-1)


def distillation_loss(
    divergence_BC: Array, logprob_BC: Array | None, rows: Taught, *, objective: Distillation
) -> tuple[Array, Metrics]:
    """The loss of some of an update's rows, and the metrics; both add up over rows."""
    divergence_BC = inside(divergence_BC, rows.weight_BC)
    sums = {"divergence": masked_sum(divergence_BC, rows.weight_BC)}
    loss = objective.coef * sums["divergence"]
    if logprob_BC is not None:
        sums["nll"] = -masked_sum(logprob_BC, rows.target_weight_BC)
        loss = loss + objective.sft_coef * sums["nll"]
    C = divergence_BC.shape[1]
    quarter_C = jnp.arange(C) * QUARTERS // C
    for quarter in range(QUARTERS):
        here_BC = jnp.where(quarter_C == quarter, rows.place_BC, 0.0)
        sums[f"divergence/quarter_{quarter + 1}"] = masked_sum(divergence_BC, here_BC)
    sums["loss"] = loss
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops={})
