"""The forecast of an update that was made again (diagnostics/forecast.py), at several rates.

    predicted_t(c) = c · predicted_t        realised_t(c) = log π(θ + c Δθ)(o_t) - log π(θ)(o_t)

c scales the update. Δθ of AdamW, its decay and the clip before it included, is proportional to the
learning rate: c is then the learning rate in units of the run's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.diagnostics.forecast import fit, for_rows, predict
from grpo.replays.again import Update
from grpo.replays.tokens import logprobs_of, scored

Tree = Any
Array = jax.Array
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Fit(NamedTuple):
    """How well a prediction fits, over the tokens of a batch: `Fitted` at a learning rate."""

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
    predicted_BC = np.asarray(predicted(update))
    mask_BC = np.asarray(update.tokens.completion_mask_BC, bool)
    start_BC, fits = scored(update, before), []
    for scale in scales:
        there_BC = scored(update, moved(before, after, scale))
        found = fit(scale * predicted_BC[mask_BC], (there_BC - start_BC)[mask_BC])
        fits.append(Fit(scale, scale * update.metrics["learning_rate"], *found))
    return predicted_BC, fits


@jax.jit
def moved(before: Tree, after: Tree, scale: float) -> Tree:
    """θ + c Δθ, in the dtype of θ; at c = 1 the very parameters after the update."""

    def one(x: Array, y: Array) -> Array:
        step = y.astype(jnp.float32) - x.astype(jnp.float32)
        return jnp.where(scale == 1, y, (x + scale * step).astype(x.dtype))

    return jax.tree.map(one, before, after)


def predicted(update: Update) -> Array:
    """d/ds log π(θ + s Δθ) of the batch's tokens at s = 0, as [B, C]."""
    tokens, loop = update.tokens, update.loop
    (B, C), V = tokens.completion_mask_BC.shape, loop.policy.config.vocab_size
    trainable = update.before.trainable, update.after.trainable
    rows = tokens.ids_BT, tokens.mask_BT
    how = for_rows(logprobs_of(update), B, C, V, update.setting.stage["microbatches"])
    return predict(*trainable, loop.start.frozen, *rows, **how)
