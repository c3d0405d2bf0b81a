"""Advantages by hand, and what may not move them."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import (
    advantages,
    decoupled_advantages,
    group_metrics,
    overlong_penalty,
)
from tests import oracle_losses

NAN = float("nan")
GROUP = {"baseline": "group", "scale": "group", "eps": 1e-6}
MEAN_ONLY = {"baseline": "group", "scale": "none", "eps": None}
RLOO = {"baseline": "leave_one_out", "scale": "none", "eps": None}
BATCH = {"baseline": "batch", "scale": "batch", "eps": 1e-6}
OVER_MEAN = {"baseline": "group", "scale": "mean", "eps": 1e-7}
OVER_ADVANTAGES = {"baseline": "group", "scale": "advantages", "eps": 1e-6}
ALL = [
    GROUP, MEAN_ONLY, RLOO, BATCH, {"baseline": "group", "scale": "batch", "eps": 1e-6},
    OVER_MEAN, OVER_ADVANTAGES,
]  # fmt: skip


def advantages_of(reward, **options):
    return np.asarray(advantages(jnp.array(reward, jnp.float32), **options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [  # group (1, 2, 3, 6): mean 3, sample deviation sqrt(14/3); group (0, 0, 0, 4): mean 1, 2
        (GROUP, [np.array([-2, -1, 0, 3]) / (14 / 3) ** 0.5, [-0.5, -0.5, -0.5, 1.5]]),
        (MEAN_ONLY, [[-2, -1, 0, 3], [-1, -1, -1, 3]]),
        (RLOO, [[1 - 11 / 3, 2 - 10 / 3, 0, 4], [-4 / 3, -4 / 3, -4 / 3, 4]]),
        (BATCH, (np.array([[1, 2, 3, 6], [0, 0, 0, 4]]) - 2) / (34 / 7) ** 0.5),
        (OVER_MEAN, [[-2 / 3, -1 / 3, 0, 1], [-1, -1, -1, 3]]),
        (OVER_ADVANTAGES, np.array([[-2, -1, 0, 3], [-1, -1, -1, 3]]) / (26 / 7) ** 0.5),
    ],
    ids=["group", "mean only", "leave one out", "batch", "over the mean", "over advantages"],
)
def test_by_hand(options, expected):
    np.testing.assert_allclose(
        advantages_of([[1, 2, 3, 6], [0, 0, 0, 4]], **options), np.array(expected), atol=2e-6
    )


def test_eps_is_added_to_the_deviation():
    assert advantages_of([[0, 1]], baseline="group", scale="group", eps=0.5)[0, 1] == pytest.approx(
        0.5 / (0.5**0.5 + 0.5)
    )


def test_a_row_belongs_to_its_prompts_group():
    """Rewards 0 0 1 1 | 5 5 6 6: both groups say the same of their completions."""
    advantage_PG = advantages_of([[0, 0, 1, 1], [5, 5, 6, 6]], **GROUP)
    np.testing.assert_allclose(advantage_PG[0], advantage_PG[1], atol=1e-5)
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(
        advantages_of([[0, 0, 1, 1], [6, 5, 6, 5]], **GROUP)[1],
        advantages_of([[0, 0, 1, 1], [5, 5, 6, 6]], **GROUP)[1][order],
    )


NEXT = np.nextafter(np.float32(7.6), np.float32(8))  # the next number after 7.6
EQUAL = [[0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2], [7.6, NEXT, 7.6, 7.6], [0] * 4, [-3] * 4]


@pytest.mark.parametrize("options", ALL[:3] + ALL[4:])
def test_a_group_without_variance_is_exactly_zero(options):
    advantage_PG = advantages_of([*EQUAL, [0, 1, 0, 1]], **options)
    assert not advantage_PG[:4].any() and advantage_PG[4].all()


def test_a_batch_without_variance_is_exactly_zero():
    assert not advantages_of([[7.6, NEXT], [7.6, 7.6]], **BATCH).any()
    assert advantages_of(
        [[1, 1], [0, 0]], **BATCH
    ).all()  # equal groups still differ from the batch


@pytest.mark.parametrize("options", ALL)
def test_a_reward_that_is_not_finite_abstains(options):
    """The others are compared as if it were not there."""
    advantage_PG = advantages_of(
        [[1, NAN, 2, 6], [float("inf"), 0, NAN, NAN], [0, 1, 2, 4]], **options
    )
    assert (
        np.isfinite(advantage_PG).all()
        and not advantage_PG[
            ~np.isfinite([[1, NAN, 2, 6], [float("inf"), 0, NAN, NAN], [0, 1, 2, 4]])
        ].any()
    )
    if options["baseline"] != "batch":
        assert advantage_PG[1, 1] == 0  # alone: nothing to compare with
    if not {"batch", "advantages"} & set(options.values()):
        np.testing.assert_allclose(
            advantage_PG[0, [0, 2, 3]], advantages_of([[1, 2, 6]], **options)[0]
        )


@pytest.mark.parametrize("options", ALL)
def test_a_group_of_one_is_never_its_raw_reward(options):
    assert not advantages_of([[5.0]], **options).any()


def test_maxrl_by_hand():
    """One right of four counts thrice, two of four once; none and all teach nothing, exactly."""
    advantage_PG = advantages_of([[1, 0, 0, 0], [1, 1, 0, 0], [0] * 4, [1] * 4], **OVER_MEAN)
    expected = np.array([[3, -1, -1, -1], [1, 1, -1, -1], [0] * 4, [0] * 4])
    np.testing.assert_allclose(advantage_PG, expected, rtol=1e-5)
    assert not advantage_PG[2:].any()


def test_a_mean_that_is_not_above_0_divides_nothing():
    """(-1, 0.5) has mean -0.25: over it the better one would have a negative advantage."""
    advantage_PG = advantages_of([[-1, 0.5], [-1, 1], [0, 1]], **OVER_MEAN)
    np.testing.assert_array_equal(advantage_PG[:2], 0)
    np.testing.assert_allclose(advantage_PG[2], [-1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "paper"),
    [
        (OVER_MEAN, oracle_losses.maxrl),
        (OVER_ADVANTAGES, oracle_losses.reinforce_pp_baseline),
    ],
)
def test_against_the_oracle(options, paper):
    random = np.random.RandomState(0)
    for reward_PG in (random.rand(5, 6), (random.rand(6, 8) < 0.3) * 1.0):
        expected = paper(reward_PG.tolist())
        np.testing.assert_allclose(
            advantages_of(reward_PG, **options), expected, rtol=2e-5, atol=2e-6
        )


def test_the_deviation_of_advantages_is_not_that_of_rewards():
    """Groups that lie far apart: within them nothing differs by more than 1."""
    far = [[0, 1], [100, 101]]
    np.testing.assert_allclose(
        advantages_of(far, **OVER_ADVANTAGES), np.array([[-1, 1]] * 2) * 0.75**0.5, rtol=1e-4
    )
    assert np.abs(advantages_of(far, baseline="group", scale="batch", eps=1e-6)).max() < 0.01


def test_decoupled_by_hand():
    """GDPO: (0, 1) and (0, 10) weigh the same once each is normalised apart."""
    rewards = {
        "right": jnp.array([[0.0, 1.0], [0.0, 0.0]]),
        "tidy": jnp.array([[10.0, 0.0], [0.0, 10.0]]),
    }
    advantage_PG = decoupled_advantages(rewards, {"right": 1.0, "tidy": 1.0}, **GROUP)
    np.testing.assert_allclose(
        advantage_PG, [[0, 0], [-(1.5**0.5), 1.5**0.5]], atol=1e-5
    )  # sums (0, 0 | -z, z) with z = 1/sqrt(2), then over their own deviation z sqrt(2/3)
    abstains = rewards | {"tidy": jnp.array([[NAN, NAN], [0.0, 10.0]])}
    assert np.isfinite(decoupled_advantages(abstains, {"right": 1.0, "tidy": 1.0}, **GROUP)).all()
    flat = {"right": jnp.array([[1.0, 1.0], [0.0, 1.0]]), "tidy": jnp.ones((2, 2))}
    assert not np.any(decoupled_advantages(flat, {"right": 1.0, "tidy": 0.3}, **GROUP)[0])
    silent = {name: jnp.full((1, 2), NAN) for name in rewards}
    assert not np.any(decoupled_advantages(silent, {"right": 1.0, "tidy": 1.0}, **GROUP))


def test_overlong_penalty_counts_tokens():
    length_PG = jnp.array([[0, 80, 90, 100, 120]])
    np.testing.assert_allclose(
        overlong_penalty(length_PG, limit=100, buffer=0.2, penalty=2.0), [[0, 0, 1, 2, 2]]
    )


def test_group_metrics():
    reward_PG = jnp.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [NAN, 0.5]])
    got = group_metrics(reward_PG, reward_PG == 1)
    assert {name: float(x) for name, x in got.items()} == {
        "group/zero_variance": 0.75,
        "group/solved_all": 0.25,
        "group/solved_none": 0.5,
        "reward/abstained": 0.125,
    }
