"""Losses of reward models, from pairs of which one is better, and from values.

    compared    Σ_p share_p ( -log σ(r_w - r_l - margin_coef · margin) + centre (r_w + r_l)² )
    valued      Σ_bh share_bh f(r_bh - y_bh)

The first is Bradley and Terry's model of comparisons, with the margin of arXiv:2307.09288 and the
centring of arXiv:2312.09244: comparisons leave the level of rewards open, and `centre` holds it
near 0. f is

    mse    ½ d²            huber    ½ d² up to |d| = 1, |d| - ½ beyond
    bce    -y log σ(r) - (1 - y) log σ(-r), for values within [0, 1]

Each pair is of one head; a value that is not known has share 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms.masked import inside, masked_sum
from grpo.algorithms.metrics import Metrics

Array = jax.Array


class Compared(NamedTuple):
    """P pairs: of the axis 2 the first is better."""

    ids_P2T: Any
    mask_P2T: Any
    head_P: Any
    margin_P: Any
    share_P: Any  # of the update's pairs, 1 / P


class Valued(NamedTuple):
    """B completions with what they are worth."""

    ids_BT: Any
    mask_BT: Any
    value_BH: Any
    share_BH: Any  # of the update's known values; 0: not known


def mse(reward: Array, value: Array) -> Array:
    """½ d²."""
    return 0.5 * (reward - value) ** 2


def huber(reward: Array, value: Array) -> Array:
    """½ d² near 0, |d| - ½ beyond 1."""
    far = jnp.abs(reward - value)
    return jnp.where(far <= 1, 0.5 * far**2, far - 0.5)


def bce(reward: Array, value: Array) -> Array:
    """-y log σ(r) - (1 - y) log σ(-r)."""
    return -value * jax.nn.log_sigmoid(reward) - (1 - value) * jax.nn.log_sigmoid(-reward)


REGRESSIONS: dict[str, Callable[[Array, Array], Array]] = {"mse": mse, "huber": huber, "bce": bce}


def compared_loss(
    reward_P2H: Array, pairs: Compared, *, margin_coef: float, centre: float
) -> tuple[Array, Metrics]:
    """The loss of some of an update's pairs, and the metrics; both add up over pairs."""
    reward_P2 = jnp.take_along_axis(reward_P2H, pairs.head_P[:, None, None], axis=2)[..., 0]
    ahead_P = reward_P2[:, 0] - reward_P2[:, 1]
    level_P = jnp.sum(reward_P2, axis=1)
    cost_P = -jax.nn.log_sigmoid(ahead_P - margin_coef * pairs.margin_P) + centre * level_P**2
    loss = masked_sum(cost_P, pairs.share_P)
    sums = {
        "loss": loss,
        "preference/accuracy": masked_sum((ahead_P > 0).astype(jnp.float32), pairs.share_P),
        "preference/ahead": masked_sum(ahead_P, pairs.share_P),
        "reward/level": masked_sum(level_P / 2, pairs.share_P),
    }
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops={})


def valued_loss(reward_BH: Array, rows: Valued, *, regression: str) -> tuple[Array, Metrics]:
    """The same of completions with values."""
    value_BH = inside(rows.value_BH, rows.share_BH)
    loss = masked_sum(REGRESSIONS[regression](reward_BH, value_BH), rows.share_BH)
    sums = {"loss": loss, "reward/level": masked_sum(reward_BH, rows.share_BH)}
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops={})
