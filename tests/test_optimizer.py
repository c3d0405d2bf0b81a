"""The schedule and the optimizer by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo.training.optimizer import learning_rate, make_optimizer


@pytest.mark.parametrize(
    ("schedule", "warmup", "final", "expected"),
    [
        ("constant", 0.0, None, [4, 4, 4, 4, 4, 4, 4, 4]),
        ("constant", 0.5, None, [1, 2, 3, 4, 4, 4, 4, 4]),
        ("cosine", 0.0, 0.0, [2 + 2 * np.cos(np.pi * n / 8) for n in range(8)]),
        ("cosine", 0.5, 0.5, [1, 2, 3, 4] + [3 + np.cos(np.pi * n / 4) for n in range(4)]),
    ],
)
def test_schedules(schedule, warmup, final, expected):
    rate = learning_rate(peak=4.0, schedule=schedule, warmup=warmup, final=final, total_updates=8)
    np.testing.assert_allclose([np.asarray(rate(n)) for n in range(8)], expected, rtol=1e-5)


def test_the_cosine_ends_with_the_run():
    rate = learning_rate(peak=1.0, schedule="cosine", warmup=0.1, final=0.1, total_updates=100)
    np.testing.assert_allclose(np.array([rate(100), rate(10)]), [0.1, 1.0], rtol=1e-6)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule='linear': expected one of constant, cosine"):
        learning_rate(peak=1.0, schedule="linear", warmup=0.0, final=0.0, total_updates=1)


PARAMS = {"mlp": {"w": jnp.array([[2.0, -2.0]])}, "norm": {"scale": jnp.array([2.0])}}


def one_update(grads, **options) -> tuple[Any, Any]:
    options = {
        "learning_rate": optax.constant_schedule(0.1), "b1": 0.9, "b2": 0.99, "eps": 1e-8,
        "weight_decay": 0.0, "decayed": ".*/w", "clip_norm": None,
    } | options  # fmt: skip
    optimizer = make_optimizer(**options)
    updates, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    return updates, state


def test_adamw_by_hand():
    """The first update of Adam is the learning rate times the sign, plus decay where it applies."""
    grads = {"mlp": {"w": jnp.array([[3.0, -0.5]])}, "norm": {"scale": jnp.array([1.0])}}
    updates, _ = one_update(grads, weight_decay=0.5)
    np.testing.assert_allclose(updates["mlp"]["w"], [[-0.1 - 0.1, 0.1 + 0.1]], rtol=1e-5)
    np.testing.assert_allclose(updates["norm"]["scale"], [-0.1], rtol=1e-5)


def test_the_clip_is_of_the_global_norm():
    grads = {"mlp": {"w": jnp.array([[3.0, 0.0]])}, "norm": {"scale": jnp.array([4.0])}}
    _, state = one_update(grads, clip_norm=1.0)
    moments = list(state[1][0].mu["norm"].values())
    np.testing.assert_allclose(moments[0], [0.1 * 4 / 5], rtol=1e-6)
