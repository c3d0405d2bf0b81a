"""How often a group teaches nothing: by enumeration of its subsets, and by simulation."""

import itertools
import math

import numpy as np
import pytest

from grpo.algorithms.advantages import group_metrics
from grpo.algorithms.dead_groups import beta_fit, counts_of, dead_chance, dead_share, log_moment

NAN = math.nan


def enumerated(reward_n, group: int) -> float:
    """Over all subsets, whether those with a reward have the same one."""
    subsets = [*itertools.combinations(list(reward_n), group)]
    dead = [len({round(x, 6) for x in one if not math.isnan(x)}) <= 1 for one in subsets]
    return sum(dead) / len(subsets)


@pytest.mark.parametrize(
    ("rewards", "group", "chance"),
    [
        ([1, 1, 0, 0], 2, 1 / 3),  # 2 of the 6 pairs
        ([1, 1, 1, 0], 2, 1 / 2),
        ([1, 1, 1, 0], 3, 1 / 4),
        ([1, 1, 0.5, 0], 2, 1 / 6),  # three values
        ([1, 1, 0, NAN], 2, 4 / 6),  # (1, 1), and the three pairs with at most one reward
        ([NAN, NAN, NAN], 2, 1.0),
        ([2, 2, 2], 3, 1.0),
        ([0, 1, 2], 1, 1.0),
        ([0.1 + 0.2, 0.3], 2, 1.0),  # equal but for rounding
    ],
)
def test_worked_by_hand(rewards, group, chance):
    assert dead_chance(np.array(rewards), group) == pytest.approx(chance, abs=1e-12)


def test_as_enumerated():
    random = np.random.RandomState(0)
    for _ in range(60):
        n = random.randint(2, 9)
        rewards = random.choice([0.0, 0.5, 1.0, -2.0, NAN], n)
        for group in range(1, n + 1):
            got = dead_chance(rewards, group)
            assert got == pytest.approx(enumerated(rewards, group), abs=1e-12)


def test_the_whole_group_is_as_the_metric_of_training_says():
    random = np.random.RandomState(1)
    reward_PG = random.choice([0.0, 1.0, 0.3, NAN], (400, 3), p=[0.5, 0.3, 0.1, 0.1])
    metric = group_metrics(reward_PG.astype(np.float32), np.zeros((400, 3), bool))
    assert dead_share(reward_PG, 3) == pytest.approx(float(metric["group/zero_variance"]), abs=1e-6)


def test_it_is_unbiased():
    """Six samples say of groups of three what groups of three are."""
    random, p = np.random.RandomState(2), 0.3
    reward_Pn = (random.rand(40_000, 6) < p).astype(float)
    assert dead_share(reward_Pn, 3) == pytest.approx(p**3 + (1 - p) ** 3, abs=0.005)


def test_counts():
    assert counts_of(np.array([1.0, 0.0, NAN, 1.0, 1.0 + 1e-9, -1.0])) == ([1, 1, 3], 1)
    assert counts_of(np.array([NAN])) == ([], 1)
    # Steps below the tolerance do not add up: the first of a class says what belongs to it.
    assert counts_of(1 + 0.8e-6 * np.arange(4))[0] == [2, 2]


def moment(a: float, b: float, power: int) -> float:
    """E[X^power], by a sum over a fine grid."""
    x = (np.arange(400_000) + 0.5) / 400_000
    density = x ** (a - 1) * (1 - x) ** (b - 1)
    return float(np.sum(x**power * density) / np.sum(density))


@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (1.2, 1.5), (6.0, 2.0)])
def test_a_beta_is_found_again(a, b):
    f = {G: moment(a, b, G - 1) for G in (8, 16, 40)}
    assert math.exp(log_moment(a, b, 15)) == pytest.approx(f[16], rel=1e-4)
    got = beta_fit((8, f[8]), (16, f[16]))
    assert got == pytest.approx((a, b), rel=0.01)
    assert math.exp(log_moment(*got, 39)) == pytest.approx(f[40], rel=0.01)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 3.0)])
def test_beyond_the_samples(a, b):
    """Rewards of 0 and 1, whose chance is a Beta's: what 16 samples say of groups of 32."""
    random = np.random.RandomState(3)
    reward_Pn = (random.rand(4000, 16) < random.beta(a, b, (4000, 1))).astype(float)
    truth = moment(a, b, 32) + moment(b, a, 32)
    assert dead_share(reward_Pn, 32) == pytest.approx(truth, abs=0.02)
    shares = [dead_share(reward_Pn, G) for G in (2, 4, 8, 16, 17, 32, 64)]
    assert shares == sorted(shares, reverse=True)


def test_beyond_four_samples():
    """p uniform: X is Beta(2, 1), and f(G) = 2 / (G + 1)."""
    random = np.random.RandomState(4)
    reward_Pn = (random.rand(30_000, 4) < random.rand(30_000, 1)).astype(float)
    for group in (2, 4, 6, 9):
        assert dead_share(reward_Pn, group) == pytest.approx(2 / (group + 1), abs=0.01)


def test_ends():
    """All dead, none dead, and prompts of both kinds."""
    dead, alive = np.ones((5, 4)), np.tile([0.0, 1.0, 2.0, 3.0], (5, 1))
    assert [dead_share(dead, G) for G in (2, 4, 9)] == [1, 1, 1]
    assert [dead_share(alive, G) for G in (2, 4, 9)] == [0, 0, 0]
    both = dead_share(np.concatenate([dead, alive]), 9)
    assert 0.45 < both <= 0.5
    assert dead_share(np.array([[0.0, 1.0], [1.0, 1.0]]), 9) == 0.5  # two samples: no fit


@pytest.mark.parametrize("group", [0, 5])
def test_a_group_that_the_samples_do_not_have(group):
    with pytest.raises(ValueError, match=r"n=4: needs 1 <= group <= n"):
        dead_chance(np.zeros(4), group)


def test_what_no_beta_has():
    with pytest.raises(ValueError, match="needs 2 <= h < n"):
        beta_fit((8, 0.1), (16, 0.2))
