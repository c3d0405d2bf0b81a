"""What difference of two accuracies an evaluation can show, reckoned before it is made.

    w_p     c (n - c) / (n (n - 1))            c of n samples right: p (1 - p), unbiased
    v       mean of w_p over problems          what a completion varies within a problem
    u       p̂ (1 - p̂)                          and over problems as well: u - v between them
    SE²     2 (v / (N m) + τ²) / S             paired: N problems in common, m completions of
                                               each, S seeds of training, over which the true
                                               accuracies have the standard deviation τ
            2 ((u - v) / N + v / (N m) + τ²) / S     unpaired: other problems for each
    δ       (z_{1-α/2} + z_{power}) SE         the smallest difference that is shown, two-sided,
                                               with a chance of `power`; 2.80 SE for 5 % and 80 %
    N(δ)    2 v (z + z)² / (m δ²)              problems that show δ of one pair of runs, were τ 0
    S(δ)    2 (v / (N m) + τ²) (z + z)² / δ²   seeds that show δ on N problems

The textbook's normal approximation. Assumed: the two policies are about equally right about each
problem, as is so where there is no difference, and a greedy completion varies from policy to policy
as a sample does. Where a policy changes much, others' rates of each problem apart, v is too small;
where two greedy policies answer most problems alike, it is too large.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """What an evaluation can show."""

    paired_se: float
    unpaired_se: float
    paired: float  # the smallest difference, on the same problems
    unpaired: float
    problems: int  # that show the wanted difference, paired, with one seed that does not vary
    seeds: int  # that show it with the problems there are


def within(right_Pn: np.ndarray) -> float:
    """v: the mean over problems of p (1 - p), from n samples of each; unbiased."""
    n = right_Pn.shape[1]
    if n < 2:
        raise ValueError(f"n={n}: needs 2 samples of a problem or more")
    count_P = right_Pn.sum(axis=1)
    return float(np.mean(count_P * (n - count_P) / (n * (n - 1))))


def z_of(alpha: float, power: float) -> float:
    """z_{1-α/2} + z_{power}."""
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)


def difference(
    right_Pn: np.ndarray,
    *,
    problems: int,
    completions: int,  # of each problem
    seed_sd: float,
    wanted: float,
    alpha: float,
    power: float,
) -> Difference:
    """What so many problems and completions can show, by samples of a policy on such problems."""
    v, share = within(right_Pn), float(right_Pn.mean())
    z, of_seed = z_of(alpha, power), seed_sd**2
    of_completions = v / (problems * completions)
    between = max(0.0, share * (1 - share) - v) / problems
    paired = math.sqrt(2 * (of_completions + of_seed))
    unpaired = math.sqrt(2 * (between + of_completions + of_seed))
    return Difference(
        paired_se=paired,
        unpaired_se=unpaired,
        paired=z * paired,
        unpaired=z * unpaired,
        problems=max(1, math.ceil(2 * v * (z / wanted) ** 2 / completions)),
        seeds=max(1, math.ceil((z * paired / wanted) ** 2)),
    )
