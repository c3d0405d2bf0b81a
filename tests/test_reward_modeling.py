"""Losses of reward models beside a float64 oracle and work by hand; the model's head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.reward_modeling import Compared, Valued, compared_loss, valued_loss
from models.gemma import Gemma
from models.reward_model import Rewards
from tests.helpers import TINY3, hidden, tiny_ids, tiny_params

P, H = 5, 2


def drawn():
    random = np.random.RandomState(0)
    return (
        random.standard_normal((P, 2, H)),
        random.randint(H, size=P),
        random.uniform(0, 2, P),
    )


def pairs_of(head_P, margin_P) -> Compared:
    nothing = np.zeros((len(head_P), 2, 1), np.int32)
    share_P = np.full(len(head_P), 1 / len(head_P), np.float32)
    return Compared(nothing, nothing, np.int32(head_P), np.float32(margin_P), share_P)


def bradley_terry(reward_P2H, head_P, margin_P, coef, centre):
    """One pair at a time."""
    total = 0.0
    for reward_2H, head, margin in zip(reward_P2H, head_P, margin_P, strict=True):
        better, worse = float(reward_2H[0, head]), float(reward_2H[1, head])
        total += math.log1p(math.exp(-(better - worse - coef * margin)))
        total += centre * (better + worse) ** 2
    return total / len(reward_P2H)


def differences(function, x, step=1e-6):
    """The gradient by central differences."""
    found = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


@pytest.mark.parametrize(("coef", "centre"), [(0.0, 0.0), (0.0, 0.01), (1.0, 0.3)])
def test_compared(coef, centre):
    reward_P2H, head_P, margin_P = drawn()
    pairs = pairs_of(head_P, margin_P)

    def ours(reward_P2H):
        return compared_loss(reward_P2H, pairs, margin_coef=coef, centre=centre)[0]

    def oracle(reward_P2H):
        return bradley_terry(reward_P2H, head_P, margin_P, coef, centre)

    value, gradient = jax.value_and_grad(ours)(jnp.float32(reward_P2H))
    np.testing.assert_allclose(value, oracle(reward_P2H), rtol=2e-6)
    np.testing.assert_allclose(gradient, differences(oracle, reward_P2H), atol=2e-6)


def worth(regression, r, y):
    """One value."""
    if regression == "bce":
        p = 1 / (1 + math.exp(-r))
        return -y * math.log(p) - (1 - y) * math.log(1 - p)
    far = abs(r - y)
    return far - 0.5 if regression == "huber" and far > 1 else far**2 / 2


@pytest.mark.parametrize("regression", ["mse", "huber", "bce"])
def test_valued(regression):
    random = np.random.RandomState(1)
    reward_BH, value_BH = 2 * random.standard_normal((6, H)), random.uniform(size=(6, H))
    known_BH = random.randint(2, size=(6, H))
    value_BH[known_BH == 0] = np.nan
    nothing = np.zeros((6, 1), np.int32)
    rows = Valued(nothing, nothing, np.float32(value_BH), np.float32(known_BH / known_BH.sum()))

    def ours(reward_BH):
        return valued_loss(reward_BH, rows, regression=regression)[0]

    def oracle(reward_BH):
        found = [
            worth(regression, float(reward_BH[place]), float(value_BH[place]))
            for place in zip(*np.nonzero(known_BH), strict=True)
        ]
        return sum(found) / len(found)

    value, gradient = jax.value_and_grad(ours)(jnp.float32(reward_BH))
    np.testing.assert_allclose(value, oracle(reward_BH), rtol=2e-6)
    np.testing.assert_allclose(gradient, differences(oracle, reward_BH), atol=2e-6, rtol=1e-5)


def test_pairs_may_be_cut_and_filled_up():
    reward_P2H, head_P, margin_P = drawn()
    pairs, numbers = pairs_of(head_P, margin_P), {"margin_coef": 1.0, "centre": 0.1}
    whole, metrics = compared_loss(jnp.float32(reward_P2H), pairs, **numbers)
    first = compared_loss(
        jnp.float32(reward_P2H[:2]), jax.tree.map(lambda x: x[:2], pairs), **numbers
    )
    rest = jax.tree.map(lambda x: np.concatenate([x[2:], 0 * x[:1]]), pairs)
    filled = np.concatenate([reward_P2H[2:], np.full((1, 2, H), 7.0)])
    second = compared_loss(jnp.float32(filled), rest, **numbers)
    np.testing.assert_allclose(first[0] + second[0], whole, rtol=1e-6)
    together = first[1].combine(second[1]).flat()
    for name, value in metrics.flat().items():
        np.testing.assert_allclose(together[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_metrics_by_hand():
    reward_P2H = jnp.array([[[2.0, 9.0], [1.0, 9.0]], [[9.0, -1.0], [9.0, 0.0]]])
    _, metrics = compared_loss(
        reward_P2H, pairs_of([0, 1], [0.0, 0.0]), margin_coef=0.0, centre=0.0
    )
    wanted = {"preference/accuracy": 0.5, "preference/ahead": 0.0, "reward/level": 0.5}
    for name, value in wanted.items():
        assert float(metrics.flat()[name]) == pytest.approx(value)


def test_the_head_reads_the_last_token_of_each_row():
    """However a row is padded: before, behind or at both sides."""
    module, params = (
        Gemma(TINY3, jnp.dtype("float32"), jnp.dtype("float32"), 0.0),
        tiny_params("gemma3"),
    )
    random = np.random.RandomState(0)
    head = {
        "w": jnp.float32(random.standard_normal((TINY3.width, H))),
        "b": jnp.float32(random.standard_normal(H)),
    }
    ids_BT = tiny_ids(4, 9)
    mask_BT = np.array([[1] * 9, [0] * 4 + [1] * 5, [1] * 6 + [0] * 3, [0] * 2 + [1] * 4 + [0] * 3])
    found_BH = Rewards(module)({"params": params}, head, jnp.array(ids_BT), jnp.array(mask_BT))
    for ids_T, mask_T, found_H in zip(ids_BT, mask_BT, found_BH, strict=True):
        alone = ids_T[mask_T == 1][None]
        hidden_1TD, _ = hidden(module, {"params": params}, jnp.array(alone), jnp.ones_like(alone))
        wanted_H = np.asarray(hidden_1TD[0, -1], float) @ np.asarray(head["w"]) + head["b"]
        np.testing.assert_allclose(found_H, wanted_H, rtol=1e-4, atol=1e-5)
