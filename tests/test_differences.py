"""What an evaluation can show: by hand, and by making it thousands of times."""

import math

import numpy as np
import pytest

from grpo.algorithms.differences import difference, within, z_of

HOW = {"alpha": 0.05, "power": 0.8}


def test_by_hand():
    """c (n - c) / (n (n - 1)): 4 / 12 and 0; half of it on the mean."""
    right_Pn = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    assert within(right_Pn) == pytest.approx(1 / 6)
    got = difference(right_Pn, problems=100, completions=1, seed_sd=0.0, wanted=0.1, **HOW)
    assert got.paired_se == pytest.approx(math.sqrt(2 / 6 / 100))
    assert got.unpaired_se == pytest.approx(math.sqrt(2 * 0.75 * 0.25 / 100))
    assert z_of(0.05, 0.8) == pytest.approx(2.8016, abs=1e-4)  # 1.95996 + 0.84162
    assert got.paired == pytest.approx(2.8016 * got.paired_se, rel=1e-4)
    assert got.problems == math.ceil(2 / 6 * 28.016**2)
    assert got.seeds == math.ceil((28.016 * got.paired_se) ** 2)


def test_it_is_unbiased():
    random = np.random.RandomState(0)
    rate_P1 = random.rand(60_000, 1)
    right_Pn = random.rand(60_000, 5) < rate_P1
    assert within(right_Pn) == pytest.approx(1 / 6, abs=0.002)  # ∫ p (1 - p)
    with pytest.raises(ValueError, match="2 samples"):
        within(right_Pn[:, :1])


@pytest.mark.parametrize("completions", [1, 4])
def test_the_error_is_that_of_many_evaluations(completions):
    """Two policies that are equally right about each problem, seeds that vary."""
    random, problems, sd = np.random.RandomState(1), 60, 0.03
    rate_P = 0.2 + 0.6 * random.rand(problems)
    right_Pn = random.rand(problems, 4000) < rate_P[:, None]
    got = difference(
        right_Pn, problems=problems, completions=completions, seed_sd=sd, wanted=0.05, **HOW
    )
    level = rate_P + sd * random.standard_normal((2, 8000, 1))
    mean = random.binomial(completions, level).mean(axis=2) / completions
    assert np.std(mean[0] - mean[1]) == pytest.approx(got.paired_se, rel=0.03)
    other = rate_P[random.randint(0, problems, (2, 8000, problems))]  # other problems for each
    level = np.clip(other + sd * random.standard_normal((2, 8000, 1)), 0, 1)
    apart = random.binomial(completions, level).mean(axis=2) / completions
    assert np.std(apart[0] - apart[1]) == pytest.approx(got.unpaired_se, rel=0.03)


def test_what_it_can_show_is_shown_four_times_in_five():
    random, problems = np.random.RandomState(2), 400
    rate_P = 0.3 + 0.3 * random.rand(problems)
    right_Pn = random.rand(problems, 2000) < rate_P[:, None]
    got = difference(right_Pn, problems=problems, completions=1, seed_sd=0, wanted=0.05, **HOW)
    first = (random.rand(4000, problems) < rate_P).astype(int)
    second = random.rand(4000, problems) < rate_P + got.paired
    apart = (second - first).mean(axis=1)
    error = (second - first).std(axis=1) / math.sqrt(problems)
    assert np.mean(np.abs(apart) > 1.96 * error) == pytest.approx(0.8, abs=0.03)


def test_as_many_as_it_takes_and_not_one_less():
    right_Pn = np.random.RandomState(3).rand(50, 8) < 0.4

    def shown(**changes):
        how = {"problems": 200, "completions": 2, "seed_sd": 0.0, "wanted": 0.03, **HOW}
        return difference(right_Pn, **{**how, **changes})

    enough = shown().problems
    assert shown(problems=enough).paired <= 0.03 < shown(problems=enough - 1).paired
    seeds = shown(seed_sd=0.02).seeds
    one = shown(seed_sd=0.02).paired
    assert one / math.sqrt(seeds) <= 0.03 < one / math.sqrt(seeds - 1)
    assert shown(wanted=1.0).seeds == 1
