"""How far an update does to each token what its gradient at the start says: predicted, realised.

    predicted_t = d/ds log π(θ + s Δθ)(o_t) at s = 0        one jvp along the update Δθ
    realised_t  = log π(θ + Δθ)(o_t) - log π(θ)(o_t)

Over the tokens of the batch:

    correlation    Pearson's, of predicted and realised; 1 where the change is as predicted
    slope          Σ predicted realised / Σ predicted²: below 1 less has changed than predicted
    unexplained    Σ (realised - predicted)² / Σ realised²

Where the correlation falls, the learning rate has left the range in which a first-order argument
about the update says anything. The derivative is computed in float32 whatever the run's dtype; the
realised change is that of the run's own log-probs, of which short floats leave little but rounding
when an update is small. Known limit: a row's logits are held at once.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.logprobs import AT_ONCE
from grpo.diagnostics.gradients import difference
from grpo.training.logprobs import Logprobs
from grpo.training.parts import in_parts
from models.policy import variables_of

Tree = Any
Array = jax.Array


class Fitted(NamedTuple):
    """How well a prediction fits, over the tokens of a batch."""

    correlation: float
    slope: float
    unexplained: float
    predicted: float  # root of the mean square, in nats
    realised: float


def fit(predicted: np.ndarray, realised: np.ndarray) -> Fitted:
    """How well some changes were predicted; NaN where that is undefined."""
    p, r = predicted.astype(np.float64), realised.astype(np.float64)
    centred = p - p.mean(), r - r.mean()
    spread = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    moments = {"pp": float((p * p).sum()), "pr": float((p * r).sum()), "rr": float((r * r).sum())}
    return Fitted(
        correlation=float((centred[0] * centred[1]).sum()) / spread if spread else math.nan,
        slope=moments["pr"] / moments["pp"] if moments["pp"] else math.nan,
        unexplained=float(((r - p) ** 2).sum()) / moments["rr"] if moments["rr"] else math.nan,
        predicted=math.sqrt(moments["pp"] / max(p.size, 1)),
        realised=math.sqrt(moments["rr"] / max(r.size, 1)),
    )


@functools.partial(jax.jit, static_argnames=("logprobs", "completion", "parts"))
def predict(
    before: Tree,
    after: Tree,
    frozen: Tree,
    ids_BT: Array,
    mask_BT: Array,
    *,
    logprobs: Logprobs,
    completion: int,
    parts: int,
) -> Array:
    """predicted_BC, from what is trained before an update and after it; keywords: `for_rows`."""
    delta, (start, frozen) = difference(after, before), in_float32((before, frozen))

    def one(*rows_BT: Array) -> Array:
        def of(trainable: Tree) -> Array:
            return scores(trainable, frozen, rows_BT, logprobs=logprobs, completion=completion)[0]

        # The transpose of u -> Jᵀ u, since products here have a backward derivative only.
        value_BC, pull = jax.vjp(of, start)
        _, push = jax.vjp(lambda u_BC: pull(u_BC)[0], jnp.zeros_like(value_BC))
        return push(delta)[0]

    return in_parts(one, ids_BT, mask_BT, parts=parts, group=logprobs.group)


def scores(
    trainable: Tree, frozen: Tree, rows: Sequence[Array], *, logprobs: Logprobs, completion: int
) -> tuple[Array, None]:
    """logprob_BC of rows (ids_BT, mask_BT), in the form of a loss and its metrics."""
    ids_BT, mask_BT = rows
    return logprobs(variables_of(trainable, frozen), ids_BT, mask_BT, completion)[0], None


def for_rows(
    logprobs: Logprobs, rows: int, completion: int, vocab: int, microbatches: int
) -> dict[str, Any]:
    """The keywords of `predict` for so many rows, in so many even parts or in more."""
    module = logprobs.module.clone(dtype=jnp.float32, param_dtype=jnp.float32)
    logits, most = rows * completion * vocab, rows // logprobs.group
    least = min(most, max(microbatches, -(-logits // AT_ONCE)))
    return {
        # A walk over the vocabulary has no forward derivative.
        "logprobs": dataclasses.replace(logprobs, module=module, at_once=logits),
        "completion": completion,
        "parts": next(parts for parts in range(least, most + 1) if most % parts == 0),
    }


def in_float32(tree: Tree) -> Tree:
    """Parameters in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
