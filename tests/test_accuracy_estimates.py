"""Intervals from published tables and from the definition; pass@k and maj@k by enumeration."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from grpo.algorithms.accuracy_estimates import (
    NO_ANSWER,
    SUBSETS,
    maj_at_k,
    mean_interval,
    pass_at_k,
    subsets,
    wilson,
)

Z = 1.959964  # 95%, two-sided


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),  # from here on by `edge`, below
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (58, 400, 0.1139, 0.1829),
        (173, 400, 0.3848, 0.4815),
    ],
)
def test_wilson_table(right, total, low, high):
    np.testing.assert_allclose(wilson(right, total, z=Z), (low, high), atol=5.001e-5)


def edge(right, total, z, inside, outside):
    """Where a share p stops being within z deviations of right / total, by bisection."""
    share, z = Fraction(right, total), Fraction(z)
    for _ in range(50):
        p = (inside + outside) / 2
        if total * (share - p) ** 2 <= z**2 * p * (1 - p):
            inside = p
        else:
            outside = p
    return float(inside)


@pytest.mark.parametrize("z", [0.5, Z, 3.0])
@pytest.mark.parametrize("total", [1, 2, 7, 30, 1319])
def test_wilson_is_what_it_is_defined_as(total, z):
    for right in {0, 1, total // 3, total - 1, total}:
        share = Fraction(right, total)
        low = edge(right, total, z, share, Fraction(0))
        high = edge(right, total, z, share, Fraction(1))
        np.testing.assert_allclose(wilson(right, total, z=z), (low, high), rtol=0, atol=1e-14)


def test_wilson_ends_are_exact():
    assert wilson(0, 0, z=Z) == (0.0, 1.0)
    for total in range(1, 300):
        assert wilson(0, total, z=Z)[0] == 0.0 and 0 < wilson(0, total, z=Z)[1] < 1
        assert wilson(total, total, z=Z)[1] == 1.0 and 0 < wilson(total, total, z=Z)[0] < 1
        assert wilson(total // 2, total, z=0.0) == (total // 2 / total,) * 2


@pytest.mark.parametrize("total", [1, 3, 10, 1319, 10**9, 10**17])
def test_wilson_is_within_0_and_1_whatever_is_rounded(total):
    for z in (1e-8, Z, *np.logspace(0, 12, 100).tolist()):
        for right in {0, 1, total // 2, total - 1, total}:
            low, high = wilson(right, total, z=z)
            assert 0 <= low <= high <= 1


@pytest.mark.parametrize(
    ("right", "total", "z"),
    [(-1, 10, Z), (11, 10, Z), (0, -1, Z), (1, 2, -1.0), (1, 2, float("nan"))],
)
def test_wilson_refuses(right, total, z):
    with pytest.raises(ValueError, match="needs"):
        wilson(right, total, z=z)


def test_the_interval_of_a_mean_of_yes_and_no_is_wilsons():
    for right, total in ((0, 20), (1, 29), (15, 148), (81, 263), (20, 20)):
        value = np.arange(total) < right
        got = mean_interval(value, most=8 * total, z=Z)
        np.testing.assert_allclose(got, wilson(right, total, z=Z), rtol=0, atol=1e-12)


def test_the_interval_of_a_mean_by_hand():
    """Values 0, 1/2, 1/2, 1 have half the variance of yes and no: as much as 8 problems say."""
    value = np.array([0, 0.5, 0.5, 1])
    assert mean_interval(value, most=16, z=Z) == pytest.approx(wilson(4, 8, z=Z), abs=1e-12)
    assert mean_interval(value, most=6, z=Z) == pytest.approx(wilson(3, 6, z=Z), abs=1e-12)
    same = np.full(4, 0.5)  # no variance: no more than the samples say
    assert mean_interval(same, most=16, z=Z) == pytest.approx(wilson(8, 16, z=Z), abs=1e-12)
    assert mean_interval(np.zeros(4), most=16, z=Z) == wilson(0, 4, z=Z)
    assert mean_interval(np.ones(4), most=16, z=Z) == wilson(4, 4, z=Z)
    assert mean_interval(np.zeros(0), most=0, z=Z) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "most"),
    [([0.5, 1.1], 9), ([-0.1], 9), ([float("nan")], 9), ([[0.5]], 9), ([0.5, 0.5], 1)],
)
def test_the_interval_of_a_mean_refuses(value, most):
    with pytest.raises(ValueError, match="needs"):
        mean_interval(np.array(value), most=most, z=Z)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (2, 2), (50, 50), (0.3, 2)])
def test_the_interval_of_a_mean_holds_the_mean_as_often_as_it_says(a, b):
    """40 problems of beta-distributed difficulty, 8 samples each, drawn 2000 times."""
    random = np.random.RandomState(0)
    inside = narrow = 0
    for _ in range(2000):
        p = random.beta(a, b, 40)
        value = random.binomial(8, p) / 8
        low, high = mean_interval(value, most=320, z=Z)
        inside += low <= a / (a + b) <= high
        assert 0 <= low <= value.mean() <= high <= 1
        plain = wilson(value.sum(), 40, z=Z)
        narrow += high - low <= plain[1] - plain[0] + 1e-12
    assert 0.925 <= inside / 2000 <= 0.98
    assert narrow == 2000


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_mean_over_all_subsets(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        drawn = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(np.arange(n) < c, k) == float(Fraction(sum(map(any, drawn)), len(drawn)))


def test_pass_at_k_of_many_samples():
    """Numbers of 3000 digits, whose quotient is a plain one."""
    sample = np.arange(10_000)
    assert pass_at_k(sample == 7, 5000) == 0.5
    assert pass_at_k(sample == 7, 1) == 1e-4  # 1 - 0.9999 is 1.0000000000001e-4
    assert pass_at_k(sample < 2, 5000) == float(1 - Fraction(5000 * 4999, 10_000 * 9999))
    assert pass_at_k(sample < 5000, 5000) == 1.0 and pass_at_k(sample < 0, 5000) == 0.0


def brute_force(vote, logprob, right, k):
    """maj@k by its words: one subset at a time, in fractions."""
    points = []
    for subset in itertools.combinations(range(len(vote)), k):
        voters = {}
        for i in subset:
            if vote[i] != NO_ANSWER:
                voters.setdefault(vote[i], []).append(i)
        rank = {v: (len(i), sum(logprob[j] for j in i) / len(i)) for v, i in voters.items()}
        best = [v for v in voters if rank[v] == max(rank.values())]
        good = [v for v in best if right[voters[v][0]]]
        points.append(Fraction(len(good), len(best)) if best else Fraction(0))
    return sum(points) / len(points)


def problems(count):
    """Random problems with many ties: few answers, log-probs in few tenths, some without answer."""
    rng = np.random.RandomState(0)
    for _ in range(count):
        n, answers = rng.randint(1, 8), rng.randint(1, 5)
        vote = rng.randint(NO_ANSWER, answers, n)
        right_answers = [a for a in range(answers) if rng.rand() < 0.4]
        logprob = [Fraction(int(tenths), 10) for tenths in rng.randint(-4, 0, n)]
        # Numbers of answers may have gaps.
        yield np.where(vote < 0, NO_ANSWER, 5 * vote), logprob, np.isin(vote, right_answers)


def test_maj_at_k_is_the_mean_over_all_subsets():
    for vote, logprob, right in problems(300):
        for k in range(1, len(vote) + 1):
            got = maj_at_k(vote, np.array(logprob, float), right, k)
            expected = brute_force(vote.tolist(), logprob, right.tolist(), k)
            assert got == pytest.approx(float(expected), abs=1e-12), (vote, logprob, right, k)


@pytest.mark.parametrize(
    ("vote", "logprob", "right", "k", "expected"),
    [
        ([0, 0, 1], [-1, -1, -3], [1, 1, 0], 1, 2 / 3),
        ([0, 0, 1], [-1, -1, -3], [1, 1, 0], 2, 1),  # 00 right, 01 twice: 0 is the likelier
        ([0, 0, 1], [-3, -3, -1], [1, 1, 0], 2, 1 / 3),  # now 1 is
        ([0, 0, 1], [-2, -2, -2], [1, 1, 0], 2, 2 / 3),  # 00 is 1, 01 is 1/2 twice
        ([0, 0, 1], [-9, -9, -1], [1, 1, 0], 3, 1),  # a majority needs no log-prob
        ([0, 1, 2], [-1, -1, -1], [1, 0, 0], 3, 1 / 3),  # three share the point
        ([0, 1, 2], [-1, -1, -2], [1, 0, 0], 3, 1 / 2),
        ([0, 1, 2], [-1, -1, -2], [1, 1, 0], 3, 1),  # two ways to be right
        ([0, 0, 1, 1], [-1, -4, -2, -2], [1, 1, 0, 0], 4, 0),  # the mean, not the best member
        ([0, 0, 1, 1, 2], [-4, -4, -5, -5, -1], [1, 1, 0, 0, 0], 5, 1),  # 2 is out of the tie
        ([-1, -1, 0], [-1, -1, -9], [0, 0, 1], 3, 1),  # no answer is no vote
        ([-1, -1, 0], [-1, -1, -9], [0, 0, 1], 2, 2 / 3),  # but it takes a place
        ([-1, -1, -1], [-1, -1, -1], [0, 0, 0], 2, 0),
    ],
)
def test_maj_at_k_by_hand(vote, logprob, right, k, expected):
    got = maj_at_k(np.array(vote), np.array(logprob, float), np.array(right, bool), k)
    assert got == pytest.approx(expected, abs=1e-12)


def test_maj_at_1_is_the_share_that_is_right():
    for vote, logprob, right in problems(50):
        got = maj_at_k(vote, np.array(logprob, float), right, 1)
        assert got == pytest.approx(right.mean(), abs=1e-12)


def test_a_tie_is_one_in_any_order():
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point; a millionth apart is no tie."""
    vote, right = np.array([0, 0, 0, 1, 1, 1]), np.array([True] * 3 + [False] * 3)
    for one, other in itertools.product(itertools.permutations([-0.1, -0.2, -0.3]), repeat=2):
        logprob = np.array([*one, *other])
        assert maj_at_k(vote, logprob, right, 6) == 0.5
        assert maj_at_k(vote, logprob + np.eye(6)[0] * 3e-6, right, 6) == 1.0
        assert maj_at_k(vote, logprob - np.eye(6)[0] * 3e-6, right, 6) == 0.0


def test_no_answer_has_no_log_prob_either():
    """An empty completion's mean log-prob is 0 / 0."""
    vote, logprob = np.array([-1, 0, 1]), np.array([np.nan, -1, -2])
    assert maj_at_k(vote, logprob, vote == 0, 2) == pytest.approx(2 / 3)


def test_one_vote_of_all_needs_no_enumeration():
    vote = np.arange(1000) % 3
    assert maj_at_k(vote, np.zeros(1000), vote == 0, 1000) == 1.0


def test_subsets_are_shared_and_read_only():
    inside_NS = subsets(6, 3)
    assert inside_NS is subsets(6, 3) and not inside_NS.flags.writeable
    assert inside_NS.shape == (6, 20) and len(np.unique(inside_NS, axis=1).T) == 20
    np.testing.assert_array_equal(inside_NS.sum(axis=0), 3)


FOUR = {"vote_G": [0, 0, 1, -1], "logprob_G": [-1.0] * 4, "right_G": [True, True, False, False]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k=0, n=4"),
        ({"k": 5}, "k=5, n=4"),
        ({"right_G": [True, False, False, False]}, "right and wrong"),
        ({"right_G": [True, True, False, True]}, "without an answer is said to be right"),
        ({"right_G": [1.0, 1.0, 0.0, 0.0]}, "booleans"),
        ({"right_G": [[True, True, False, False]]}, "booleans"),
        ({"vote_G": [0, 0, 1]}, "differ"),
        ({"vote_G": [0, 0, 1, -2]}, "whole numbers"),
        ({"vote_G": [0.0, 0.0, 0.5, -1.0]}, "whole numbers"),
        ({"logprob_G": [-1.0] * 3}, "differ"),
        ({"logprob_G": [-1.0, np.nan, -1.0, -1.0]}, "not finite"),
        ({"logprob_G": [-1.0, -np.inf, -1.0, -1.0]}, "not finite"),
    ],
)
def test_maj_at_k_refuses(change, message):
    assert maj_at_k(**FOUR, k=2) == pytest.approx(4 / 6)  # 00 and 0- are right, 01 is a half
    with pytest.raises(ValueError, match=message):
        maj_at_k(**{**FOUR, "k": 2, **change})


def test_too_many_subsets_is_one_line_that_says_what_to_do():
    got = {"logprob_G": np.zeros(30), "right_G": np.zeros(30, bool)}
    message = f"^k=15, n=30: more than {SUBSETS} subsets; use k=30, .* fewer samples$"
    with pytest.raises(ValueError, match=message):
        maj_at_k(np.arange(30), **got, k=15)
    with pytest.raises(ValueError, match="n=10000"):
        subsets(10_000, 5000)
    assert maj_at_k(np.arange(30), **got, k=30) == 0.0
    with pytest.raises(ValueError, match="k=3, n=2"):
        pass_at_k(np.array([True, False]), 3)
    with pytest.raises(ValueError, match="k=0, n=2"):
        pass_at_k(np.array([True, False]), 0)
