"""Holm's correction: of all tests of a table, no false one at all with 95 %.

    p̃_(i) = max over j <= i of min(1, (M - j + 1) p_(j)),   p_(1) <= ... <= p_(M)

Holm 1979, Scandinavian Journal of Statistics 6:65. It holds whatever the tests have in common, such
as the base that all of them are compared with, and rejects whatever Bonferroni's would. A test that
could not be made (p is NaN) has no corrected p, and does not count among the M.
"""

import numpy as np


def holm(p_M: np.ndarray) -> np.ndarray:
    """The corrected p, in the order of the tests."""
    p_M = np.asarray(p_M, float)
    order = np.argsort(p_M, kind="stable")[: int((~np.isnan(p_M)).sum())]  # NaN is last
    factors = np.arange(len(order), 0, -1)
    corrected_M = np.full(p_M.shape, np.nan)
    corrected_M[order] = np.maximum.accumulate(np.minimum(factors * p_M[order], 1.0))
    return corrected_M
