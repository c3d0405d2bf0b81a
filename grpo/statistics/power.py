"""How many seeds would show a difference of the size that was observed.

    e²(n)    = s² / n + C                                   problems.py; C is 0 over seeds alone
    f(n)     = e⁴ / ((s² / n)² / (n - 1) + C² / (n̄ - 1))    Satterthwaite 1946, Biometrics 2:110
    power(n) = P(|t'(f, D / e)| > h(n) / e)                 t' is the noncentral t, h that of
                                                            problems.py with n seeds

With C = 0 this is exactly the power of a paired t-test; else it is near what simulations give
(within 0.06 where it was tried). With more seeds only s² / n falls: where
D / √C is too small, no number of seeds is enough and there must be more problems.

Flaw: the true difference is not the observed one, and near the edge of significance the number says
little more than p does (Hoenig and Heisey 2001, The American Statistician 55:19). It is an order of
magnitude for the next sweep, not a result.
"""

import math

import numpy as np
from scipy import stats

from grpo.statistics.problems import Parts, half_width

MOST = 1000  # seeds that are thought of
CERTAIN = 30.0  # D / e, beyond which the noncentral t need not be asked


def power(parts: Parts, seeds: np.ndarray, *, alpha: float) -> np.ndarray:
    """The chance that so many seeds show the difference; each number is at least 2."""
    seeds = np.asarray(seeds, float)
    of_seeds, of_problems = parts.over_seeds / seeds, parts.over_problems
    square = of_seeds + of_problems
    problems = max(parts.shared - 1, 1)
    freedom = square**2 / (of_seeds**2 / (seeds - 1) + of_problems**2 / problems)
    shift = np.minimum(abs(parts.value) / np.sqrt(square), CERTAIN)
    half = np.array([half_width(parts._replace(seeds=int(n)), alpha) for n in seeds])
    edge = half / np.sqrt(square)
    either = stats.nct.sf(edge, freedom, shift) + stats.nct.cdf(-edge, freedom, shift)
    return np.where(shift < CERTAIN, either, 1.0)


def power_of_all_seeds(parts: Parts, *, alpha: float) -> float:
    """The chance with as many seeds as one likes, on as many problems as there are."""
    if parts.over_problems == 0:
        return 1.0
    edge, shift = stats.norm.isf(alpha / 2), abs(parts.value) / math.sqrt(parts.over_problems)
    return float(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift))


def seeds_needed(parts: Parts, *, alpha: float, chance: float) -> int | None:
    """The least number of seeds with this power; None of more than MOST, or of no difference."""
    if parts.value == 0 or not parts.over_seeds + parts.over_problems > 0:
        return None
    seeds = np.arange(2, MOST + 1)
    enough = np.flatnonzero(power(parts, seeds, alpha=alpha) >= chance)
    return int(seeds[enough[0]]) if len(enough) else None
