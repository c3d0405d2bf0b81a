"""Means over seeds and their differences, with Student's t.

    mean       m ± t(S - 1) s / √S                        s² the variance over seeds, ddof 1
    paired     the mean of d = x - y over the seeds of both
    unpaired   x̄ - ȳ ± t(f) e                             e² = s_x² / S_x + s_y² / S_y
               f = e⁴ / (s_x⁴ / S_x² (S_x - 1) + s_y⁴ / S_y² (S_y - 1))

Student 1908, Biometrika 6:1; Welch 1947, Biometrika 34:28. Cells of one seed share their prompts,
their order and their draws, so differences are paired; the unpaired one is here to be compared with
(pairing.py). Seeds are taken as drawn at random, and their means as normal: with three to five of
them nothing weaker can be said, and less than two say nothing: such an interval is NaN.

Where all seeds have the very same difference and it is not 0, t has no scale: the interval and p
are NaN, not a certainty. Where all are 0, the interval is 0 to 0 and p is 1.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

ROUNDING = 1e-12  # numbers that are this near are equal


class Estimate(NamedTuple):
    """A number, its interval and how likely one as far from 0 would be if the true one were 0."""

    value: float
    low: float
    high: float
    p: float


def untold(value: float) -> Estimate:
    """An estimate without an interval."""
    return Estimate(value, math.nan, math.nan, math.nan)


def estimate(value: float, error: float, freedom: float, *, level: float) -> Estimate:
    """The estimate of a value with a standard error of so many degrees of freedom."""
    if error == 0 and value == 0 and freedom > 0:
        return Estimate(0.0, 0.0, 0.0, 1.0)
    if error == 0 or not freedom > 0:
        return untold(value)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(value, value - half, value + half, two_sided(abs(value) / error, freedom))


def two_sided(t: float, freedom: float) -> float:
    """How likely a t is at least as far from 0."""
    return 2 * float(stdtr(freedom, -t))


def variance(value_S: np.ndarray) -> float:
    """The variance over seeds, exactly 0 where they differ by rounding alone; NaN of one."""
    if len(value_S) < 2:
        return math.nan
    return 0.0 if np.ptp(value_S) <= ROUNDING else float(np.var(value_S, ddof=1))


def mean_over_seeds(value_S: np.ndarray, *, level: float) -> Estimate:
    """The mean."""
    value_S = np.asarray(value_S, float)
    value = float(value_S.mean()) if len(value_S) else math.nan
    value = 0.0 if abs(value) <= ROUNDING else value
    error = math.sqrt(variance(value_S) / max(len(value_S), 1))
    return estimate(value, error, len(value_S) - 1, level=level)


def paired_difference(x_S: np.ndarray, y_S: np.ndarray, *, level: float) -> Estimate:
    """The mean of x - y; `x_S` and `y_S` are of the same seeds, in one order."""
    x_S, y_S = np.asarray(x_S, float), np.asarray(y_S, float)
    if x_S.shape != y_S.shape:
        raise ValueError(f"{len(x_S)} and {len(y_S)} seeds: pairs need the same ones")
    return mean_over_seeds(x_S - y_S, level=level)


def unpaired_difference(x_S: np.ndarray, y_S: np.ndarray, *, level: float) -> Estimate:
    """x̄ - ȳ of seeds that have nothing to do with each other."""
    x_S, y_S = np.asarray(x_S, float), np.asarray(y_S, float)
    value = float(x_S.mean() - y_S.mean())
    if min(len(x_S), len(y_S)) < 2:
        return untold(value)
    of_x, of_y = variance(x_S) / len(x_S), variance(y_S) / len(y_S)
    square = of_x + of_y
    below = of_x**2 / (len(x_S) - 1) + of_y**2 / (len(y_S) - 1)
    freedom = square**2 / below if below else len(x_S) + len(y_S) - 2
    value = 0.0 if abs(value) <= ROUNDING else value
    return estimate(value, math.sqrt(square), freedom, level=level)
