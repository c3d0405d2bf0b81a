"""Interquartile mean and probability of improvement, with intervals by stratified bootstrap.

    IQM           the mean of the scores without the lowest and the highest ⌊n / 4⌋ of n = S T
    P(X > Y)      mean over tasks, and over pairs of a seed of X and one of Y, of
                  [x > y] + [x = y] / 2, which is Mann and Whitney's U / (S_x S_y)
    interval      quantiles of the statistic over D draws, each of as many seeds with repetition,
                  in each task (stratum) apart

Agarwal et al. 2021, arXiv:2108.13264 (rliable). A score is that of a seed on a task: score_ST.

Flaw: with one task and three to five seeds such an interval is too narrow. The draws know only the
few seeds there are, and hold the true value far less often than 95 % (measured in
docs/statistics.md). It describes the seeds at hand; claims go by problems.py and student.py. Nor
does P(X > Y) know of pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A statistic and where its draws lie."""

    value: float
    low: float
    high: float


def interquartile_mean(score_ST: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the scores of the last two axes."""
    score_ST = np.asarray(score_ST, float)
    ordered = np.sort(score_ST.reshape(*score_ST.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def probability_of_improvement(x_ST: np.ndarray, y_ST: np.ndarray) -> np.ndarray:
    """The chance that a seed of X has more than one of Y; seeds need not be equally many."""
    x, y = np.asarray(x_ST, float)[..., :, None, :], np.asarray(y_ST, float)[..., None, :, :]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(-3, -2, -1))


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    level: float,
    draws: int,
    seed: int,
) -> Interval:
    """A statistic of one or more score_ST, each drawn again for itself."""
    rng = np.random.RandomState([seed, draws])
    drawn = []
    for score_ST in scores:
        seeds, tasks = score_ST.shape
        index_DST = rng.randint(seeds, size=(draws, seeds, tasks))
        drawn.append(np.take_along_axis(score_ST[None], index_DST, axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(*drawn), [tail, 1 - tail])
    return Interval(float(statistic(*scores)), float(low), float(high))
