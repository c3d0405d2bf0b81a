"""Intervals, Holm, IQM and power: against SciPy, closed tests, and numbers worked by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from grpo.statistics.holm import holm
from grpo.statistics.interquartile import (
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
)
from grpo.statistics.pairing import Pairing, pairing, pooled
from grpo.statistics.power import MOST, power, power_of_all_seeds, seeds_needed
from grpo.statistics.problems import Parts, over_seeds_and_problems, parts_of
from grpo.statistics.student import (
    estimate,
    mean_over_seeds,
    paired_difference,
    unpaired_difference,
)

LEVEL = 0.95


def seeds_of(seed, *sizes):
    rng = np.random.RandomState(seed)
    return [rng.normal(0.4, 0.1, size=size) for size in sizes]


def test_a_mean_worked_by_hand():
    """Of 1, 2, 3 s is 1; t(2) of 97.5 % is 4.3027 in every table; t = 2 √3 has p = 0.0742."""
    found = mean_over_seeds(np.array([1.0, 2.0, 3.0]), level=LEVEL)
    half = 4.302653 / math.sqrt(3)
    assert found == pytest.approx((2.0, 2 - half, 2 + half, 0.074180), abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_paired_differences_are_scipys(seeds):
    x_S, y_S = seeds_of(seeds, seeds, seeds)
    theirs = stats.ttest_rel(x_S, y_S)
    low, high = theirs.confidence_interval(LEVEL)
    ours = paired_difference(x_S, y_S, level=LEVEL)
    assert ours == pytest.approx((np.mean(x_S - y_S), low, high, theirs[1]), rel=1e-9)
    with pytest.raises(ValueError, match="the same ones"):
        paired_difference(x_S, y_S[1:], level=LEVEL)


@pytest.mark.parametrize(("seeds", "others"), [(2, 3), (5, 5), (5, 3)])
def test_unpaired_differences_are_scipys(seeds, others):
    x_S, y_S = seeds_of(others, seeds, others)
    theirs = stats.ttest_ind(x_S, y_S, equal_var=False)
    low, high = theirs.confidence_interval(LEVEL)
    ours = unpaired_difference(x_S, y_S, level=LEVEL)
    assert ours == pytest.approx((x_S.mean() - y_S.mean(), low, high, theirs[1]), rel=1e-9)


def test_what_seeds_cannot_tell():
    """One seed; seeds that all say the same, which is no certainty; seeds that are equal."""
    assert np.isnan(mean_over_seeds(np.array([0.3]), level=LEVEL)[1:]).all()
    assert np.isnan(mean_over_seeds(np.array([]), level=LEVEL)).all()
    assert np.isnan(unpaired_difference(np.array([0.3]), np.ones(3), level=LEVEL)[1:]).all()
    x_S = np.array([0.1, 0.2, 0.3])
    same = paired_difference(x_S + 0.1, x_S, level=LEVEL)  # 0.1 but for rounding
    assert same.value == pytest.approx(0.1) and np.isnan(same[1:]).all()
    assert paired_difference(x_S, x_S, level=LEVEL) == (0.0, 0.0, 0.0, 1.0)
    assert unpaired_difference(np.ones(2), np.ones(3), level=LEVEL) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan(estimate(1.0, 0.5, 0, level=LEVEL)[1:]).all()


def anova(table_SP):
    """Mean squares of a table of two factors, sum by sum."""
    S, P = table_SP.shape
    mean, of_S, of_P = table_SP.mean(), table_SP.mean(axis=1), table_SP.mean(axis=0)
    seeds = P * sum((m - mean) ** 2 for m in of_S) / (S - 1)
    problems = S * sum((m - mean) ** 2 for m in of_P) / (P - 1)
    rest = sum(
        (table_SP[s, p] - of_S[s] - of_P[p] + mean) ** 2 for s in range(S) for p in range(P)
    ) / ((S - 1) * (P - 1))
    return seeds, problems, rest


@pytest.mark.parametrize("shape", [(2, 7), (3, 20), (5, 40)])
def test_a_full_table_is_an_analysis_of_variance(shape):
    S, P = shape
    rng = np.random.RandomState(S)
    table_SP = rng.normal(size=(S, 1)) + 2 * rng.normal(size=P) + rng.normal(size=shape)
    seeds, problems, rest = anova(table_SP)
    parts = parts_of(table_SP)
    assert parts.value == pytest.approx(table_SP.mean()) and parts.shared == P
    assert parts.over_seeds / S == pytest.approx(seeds / (S * P))
    assert parts.over_problems == pytest.approx((problems - rest) / (S * P))


def test_seeds_with_problems_of_their_own_are_students():
    rng = np.random.RandomState(0)
    table_SP = np.full((4, 80), np.nan)
    for s in range(4):
        table_SP[s, 20 * s : 20 * s + 20] = rng.randint(-1, 2, size=20)
    theirs = stats.ttest_1samp(np.nanmean(table_SP, axis=1), 0)
    low, high = theirs.confidence_interval(LEVEL)
    found = over_seeds_and_problems(table_SP, level=LEVEL)
    assert found == pytest.approx((np.nanmean(table_SP), low, high, theirs[1]), rel=1e-9)


def test_problems_that_some_seeds_share():
    """Two seeds with three problems each, two of them shared: C = cov · 2 / (2 - 1) / (3 · 3)."""
    nan = math.nan
    table_SP = np.array([[1.0, 0.0, -1.0, nan], [nan, 1.0, 0.0, -1.0]])
    # From the means, both 0: shared products 0 · 1 and -1 · 0, so that C is 0.
    assert parts_of(table_SP).over_problems == 0
    table_SP = np.array([[0.0, 1.0, -1.0, nan], [nan, 1.0, -1.0, 0.0]])
    parts = parts_of(table_SP)
    assert parts.over_problems == pytest.approx((1 + 1) * 2 / 9) and parts.shared == 2
    # Means 2/3 and 1/3: the shared products are 1/3 · 2/3 and -2/3 · -1/3.
    table_SP = np.array([[1.0, 1.0, 0.0, nan], [nan, 1.0, 0.0, 0.0]])
    assert parts_of(table_SP).over_problems == pytest.approx((2 / 9 + 2 / 9) * 2 / 9)


def test_the_interval_reaches_0_where_p_is_5_percent():
    """At the level 1 - p the interval ends at 0, and it is never narrower than over seeds."""
    rng = np.random.RandomState(1)
    for S, P in ((2, 50), (3, 200), (5, 400)):
        table_SP = 0.15 + 0.3 * rng.normal(size=P) + rng.normal(size=(S, P))
        found = over_seeds_and_problems(table_SP, level=LEVEL)
        assert 0 < found.p < 1
        edge = over_seeds_and_problems(table_SP, level=1 - found.p)
        assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)
        seeds = mean_over_seeds(table_SP.mean(axis=1), level=LEVEL)
        assert found.low <= seeds.low and found.high >= seeds.high and found.p >= seeds.p


def test_equal_counts_of_seeds_are_no_certainty():
    """Both seeds gain 2 of 8 problems, others: problems alone stand for what seeds do not tell."""
    table_SP = np.zeros((2, 8))
    table_SP[0, :2] = table_SP[1, 2:4] = 1
    found = over_seeds_and_problems(table_SP, level=LEVEL)
    # The variance of 2 ones among 8 is 3/14, of their mean 3/112; the covariance is below 0.
    half = 12.7062047 * math.sqrt(3 / 112 / 2)
    assert found[:3] == pytest.approx((0.25, 0.25 - half, 0.25 + half))
    assert over_seeds_and_problems(np.zeros((2, 8)), level=LEVEL) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan(over_seeds_and_problems(np.ones((2, 8)), level=LEVEL)[1:]).all()
    assert np.isnan(over_seeds_and_problems(table_SP[:1], level=LEVEL)[1:]).all()
    with pytest.raises(ValueError, match="each of them problems"):
        parts_of(np.full((2, 3), np.nan))


def test_a_difference_beyond_doubt_has_a_p_that_is_a_number():
    rng = np.random.RandomState(0)
    table_SP = 1e9 + 1e-3 * (rng.normal(size=50) + rng.normal(size=(5, 50)))
    assert 0 < over_seeds_and_problems(table_SP, level=LEVEL).p <= 1e-14


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: the last one is raised to the one before."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.01, math.nan, 0.02])) == pytest.approx(
        [0.02, math.nan, 0.02], nan_ok=True
    )
    assert holm(np.array([0.7, 0.6])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).size == 0


def test_holm_is_the_closed_test_of_bonferronis():
    """A hypothesis goes where every set of hypotheses with it goes by Bonferroni."""
    rng = np.random.RandomState(0)
    for _ in range(50):
        p_M = np.round(rng.uniform(size=5) ** 3, 2)  # with ties
        sets = [c for n in range(1, 6) for c in itertools.combinations(range(5), n)]
        closed = [
            max(min(1.0, len(c) * min(p_M[list(c)])) for c in sets if m in c) for m in range(5)
        ]
        np.testing.assert_allclose(holm(p_M), closed)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 1), (5, 1), (7, 1), (5, 3), (10, 26)])
def test_the_interquartile_mean_is_scipys(shape):
    score_ST = np.random.RandomState(0).normal(size=shape)
    assert interquartile_mean(score_ST) == pytest.approx(stats.trim_mean(score_ST.ravel(), 0.25))


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([[9.0], [2.0], [3.0], [4.0], [-50.0]])) == pytest.approx(3)


def test_the_probability_of_improvement_is_mann_and_whitneys():
    rng = np.random.RandomState(0)
    x_ST, y_ST = rng.randint(0, 4, size=(5, 3)), rng.randint(0, 4, size=(4, 3))  # with ties
    each = [stats.mannwhitneyu(x_ST[:, t], y_ST[:, t]).statistic / 20 for t in range(3)]
    assert probability_of_improvement(x_ST, y_ST) == pytest.approx(np.mean(each))
    assert probability_of_improvement(np.array([[1.0], [2.0]]), np.array([[1.0]])) == 0.75


def test_a_bootstrap_draws_seeds_in_each_task_apart():
    """Against the exact distribution: two seeds with 0 and 1, so sums of S T are binomial."""
    score_ST = np.array([[0.0, 0.0], [1.0, 1.0]])
    seen = []

    def mean(drawn):
        seen.append(drawn)
        return drawn.mean(axis=(-2, -1))

    found = bootstrap(mean, score_ST, level=0.9, draws=20_000, seed=0)
    counts = np.bincount((4 * seen[0].mean(axis=(1, 2))).astype(int), minlength=5) / 20_000
    np.testing.assert_allclose(counts, stats.binom.pmf(range(5), 4, 0.5), atol=0.015)
    assert found == (0.5, 0.0, 1.0)
    again = bootstrap(interquartile_mean, score_ST, level=LEVEL, draws=500, seed=3)
    assert again == bootstrap(interquartile_mean, score_ST, level=LEVEL, draws=500, seed=3)


def test_a_bootstrap_draws_both_cells_for_themselves():
    """Of equal cells each draw would be equal too: never above the half."""
    x_ST = np.arange(6.0)[:, None]
    found = bootstrap(
        probability_of_improvement, x_ST, x_ST, level=LEVEL, draws=2000, seed=0
    )  # fmt: skip
    assert found.value == 0.5 and found.low < 0.3 and found.high > 0.7


def over_seeds(value, deviation):
    return Parts(value, 3, deviation**2, 0.0, 0.0)


def test_power_is_that_of_a_paired_t_test_by_simulation():
    rng = np.random.RandomState(0)
    for n in (3, 5, 10):
        d = rng.normal(0.1, 0.08, size=(20_000, n))
        shown = np.asarray(stats.ttest_1samp(d, 0, axis=1)[1]) <= 0.05
        told = power(over_seeds(0.1, 0.08), np.array([n]), alpha=0.05)
        assert told[0] == pytest.approx(shown.mean(), abs=0.011)


def test_seeds_needed_by_a_published_table():
    """Paired t, 80 % at 5 %, effect d: n = 199, 34, 15 (Cohen's 0.2, 0.5, 0.8)."""
    for effect, n in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert seeds_needed(over_seeds(-effect, 1.0), alpha=0.05, chance=0.8) == n
    assert seeds_needed(over_seeds(9.0, 1.0), alpha=0.05, chance=0.8) == 3
    assert seeds_needed(over_seeds(1e3, 1.0), alpha=0.05, chance=0.8) == 2
    assert seeds_needed(over_seeds(0.01, 1.0), alpha=0.05, chance=0.8) is None
    assert seeds_needed(over_seeds(0.0, 1.0), alpha=0.05, chance=0.8) is None
    assert seeds_needed(Parts(0.3, 2, 0.0, 0.0, 5.0), alpha=0.05, chance=0.8) is None


def test_power_with_problems_by_simulation():
    """Seeds and problems drawn anew; the share whose interval does not hold 0."""
    rng = np.random.RandomState(0)
    S, P, mu = 5, 200, 0.15
    shown = []
    for _ in range(2000):
        table_SP = mu + 0.1 * rng.normal(size=(S, 1)) + 0.3 * rng.normal(size=P)
        found = over_seeds_and_problems(table_SP + rng.normal(size=(S, P)), level=LEVEL)
        shown.append(found.p <= 0.05)
    truth = Parts(mu, S, 0.1**2 + 1 / P, 0.3**2 / P, P)
    told = power(truth, np.array([S]), alpha=0.05)[0]
    assert told == pytest.approx(np.mean(shown), abs=0.05)


def test_no_number_of_seeds_makes_up_for_problems():
    few = Parts(0.1, 3, 0.01**2, 0.05**2, 200.0)  # two deviations of the problems' part
    assert power_of_all_seeds(few, alpha=0.05) == pytest.approx(0.5160, abs=1e-4)
    assert power(few, np.array([MOST]), alpha=0.05)[0] == pytest.approx(0.5160, abs=0.01)
    assert seeds_needed(few, alpha=0.05, chance=0.8) is None
    assert power_of_all_seeds(over_seeds(0.1, 1.0), alpha=0.05) == 1.0


def test_pairing_pays_one_over_one_less_the_correlation():
    rng = np.random.RandomState(0)
    common = rng.normal(size=20_000)
    x, y = (0.8**0.5 * common + 0.2**0.5 * rng.normal(size=20_000) for _ in range(2))
    assert pairing(x, y).ratio == pytest.approx(1 / (1 - 0.8), rel=0.05)
    hand = pairing(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 4.0]))
    assert hand == pytest.approx((1 + 13 / 3, 4 / 3)) and hand.ratio == pytest.approx(4)
    assert math.isnan(pairing(np.ones(3), np.ones(3)).ratio)
    assert pooled([Pairing(1, 2), Pairing(5, 1)]) == (6, 3)
