"""What pairing pays: how much larger the variance of a difference is without it.

    ratio = (s_x² + s_y²) / s_(x - y)² = 1 / (1 - ρ) where both variances are equal

As many seeds as this ratio says would be needed without pairs to know a difference as well. Below 1
pairing has cost something. The ratio of a few seeds is itself uncertain: sums of variances over
many ablations say more than a single one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from grpo.statistics.student import variance


class Pairing(NamedTuple):
    """Variances of a difference of two cells."""

    unpaired: float  # s_x² + s_y²
    paired: float  # s_(x - y)²

    @property
    def ratio(self) -> float:
        """What pairing pays; NaN where there is nothing to divide by."""
        return self.unpaired / self.paired if self.paired > 0 else float("nan")


def pairing(x: np.ndarray, y: np.ndarray) -> Pairing:
    """Of values of the same seeds, or of the same problems, in one order."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return Pairing(variance(x) + variance(y), variance(x - y))


def pooled(found: Iterable[Pairing]) -> Pairing:
    """The sums of several."""
    found = list(found)
    return Pairing(sum(one.unpaired for one in found), sum(one.paired for one in found))
