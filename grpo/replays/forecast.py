"""How far an update does to each token what its gradient at the start says: predicted, realised.

    predicted_t(c) = c · d/ds log π(θ + s Δθ)(o_t) at s = 0      one jvp along the update Δθ
    realised_t(c)  = log π(θ + c Δθ)(o_t) - log π(θ)(o_t)

c scales the update. Δθ of AdamW, its decay and the clip before it included, is proportional to the
learning rate: c is then the learning rate in units of the run's. Over the tokens of the batch:

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
from grpo.replays.again import Update
from grpo.replays.gradients import difference
from grpo.replays.tokens import logprobs_of, scored
from grpo.training.logprobs import Logprobs
from grpo.training.parts import in_parts
from models.policy import variables_of

Tree = Any
Array = jax.Array
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Fit(NamedTuple):
    """How well a prediction fits, over the tokens of a batch."""

    scale: float
    learning_rate: float
    correlation: float
    slope: float
    unexplained: float
    predicted: float  # root of the mean square, in nats
    realised: float


def forecast(update: Update, scales: Sequence[float]) -> tuple[np.ndarray, list[Fit]]:
    """predicted_BC of the update as it was, and how it fits at some scales of the update."""
    before, after = update.before.trainable, update.after.trainable
    predicted_BC = np.asarray(slope_along(update, difference(after, before)))
    mask_BC = np.asarray(update.tokens.completion_mask_BC, bool)
    start_BC, fits = scored(update, before), []
    for scale in scales:
        there_BC = scored(update, moved(before, after, scale))
        fits.append(
            fit(
                scale * predicted_BC[mask_BC],
                (there_BC - start_BC)[mask_BC],
                scale=scale,
                learning_rate=scale * update.metrics["learning_rate"],
            )
        )
    return predicted_BC, fits


@jax.jit
def moved(before: Tree, after: Tree, scale: float) -> Tree:
    """θ + c Δθ, in the dtype of θ; at c = 1 the very parameters after the update."""

    def one(x: Array, y: Array) -> Array:
        step = y.astype(jnp.float32) - x.astype(jnp.float32)
        return jnp.where(scale == 1, y, (x + scale * step).astype(x.dtype))

    return jax.tree.map(one, before, after)


def slope_along(update: Update, delta: Tree) -> Array:
    """d/ds log π(θ + s Δθ) of the batch's tokens at s = 0, as [B, C]."""
    tokens, loop = update.tokens, update.loop
    (B, C), V = tokens.completion_mask_BC.shape, loop.policy.config.vocab_size
    module = loop.policy.module.clone(dtype=jnp.float32, param_dtype=jnp.float32)
    # A walk over the vocabulary has no forward derivative.
    logprobs = dataclasses.replace(logprobs_of(update), module=module, at_once=B * C * V)
    return along(
        in_float32(update.before.trainable),
        delta,
        in_float32(loop.start.frozen),
        jnp.asarray(tokens.ids_BT),
        jnp.asarray(tokens.mask_BT),
        logprobs=logprobs,
        completion=C,
        parts=min(B // logprobs.group, -(-B * C * V // AT_ONCE)),
    )


@functools.partial(jax.jit, static_argnames=("logprobs", "completion", "parts"))
def along(
    trainable: Tree,
    delta: Tree,
    frozen: Tree,
    ids_BT: Array,
    mask_BT: Array,
    *,
    logprobs: Logprobs,
    completion: int,
    parts: int,
) -> Array:
    """The jvp, a part of the rows at a time."""

    def one(ids_BT: Array, mask_BT: Array) -> Array:
        def of(trainable: Tree) -> Array:
            return logprobs(variables_of(trainable, frozen), ids_BT, mask_BT, completion)[0]

        # The transpose of u -> Jᵀ u, since products here have a backward derivative only.
        value_BC, pull = jax.vjp(of, trainable)
        _, push = jax.vjp(lambda u_BC: pull(u_BC)[0], jnp.zeros_like(value_BC))
        return push(delta)[0]

    return in_parts(one, ids_BT, mask_BT, parts=parts, group=logprobs.group)


def in_float32(tree: Tree) -> Tree:
    """Parameters in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def fit(predicted: np.ndarray, realised: np.ndarray, *, scale: float, learning_rate: float) -> Fit:
    """How well some changes were predicted; NaN where that is undefined."""
    p, r = predicted.astype(np.float64), realised.astype(np.float64)
    centred = p - p.mean(), r - r.mean()
    spread = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    moments = {"pp": float((p * p).sum()), "pr": float((p * r).sum()), "rr": float((r * r).sum())}
    return Fit(
        scale=scale,
        learning_rate=learning_rate,
        correlation=float((centred[0] * centred[1]).sum()) / spread if spread else math.nan,
        slope=moments["pr"] / moments["pp"] if moments["pp"] else math.nan,
        unexplained=float(((r - p) ** 2).sum()) / moments["rr"] if moments["rr"] else math.nan,
        predicted=math.sqrt(moments["pp"] / max(p.size, 1)),
        realised=math.sqrt(moments["rr"] / max(r.size, 1)),
    )
