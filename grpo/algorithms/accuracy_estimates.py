"""What n samples of a problem, or n problems, say of accuracy.

    Wilson    p of |p̂ - p| <= z √(p (1 - p) / n)     p̂ = right / n; Wilson 1927, JASA 22:209
              = (p̂ + z²/2n ± z √(p̂ (1 - p̂) / n + z²/4n²)) / (1 + z²/n)
    pass@k    1 - C(n - c, k) / C(n, k)              c right of n; arXiv:2107.03374
    maj@k     mean over all C(n, k) subsets of the points of their majority's answer
    interval  of a mean over P problems: Wilson's with n_eff = p̂ (1 - p̂) / (s² / P) for n, s² the
              variance between problems (ddof 0), and P <= n_eff <= `most`

A majority is the answer with most votes (self-consistency, arXiv:2203.11171). Of answers with
equally many, the one whose samples in the subset have the highest mean log-prob; of those still
tied, each has an equal share of the point: as often as it would have the first sample if these
came in another order. A sample without an answer takes a place in the subset
and casts no vote; a subset without any vote is wrong.

Mean log-probs within EQUAL of the highest are tied with it: sums of the same numbers in another
order differ by about 1e-16, and which answer wins may not depend on the order of the samples.

n_eff is the size of a simple random sample that would know as much (Kish's effective sample size;
Korn and Graubard 1998, Survey Methodology 24:193). Where a problem's value is 0 or 1 it is P, and
the interval is Wilson's own. Several samples of each problem narrow it as far as problems agree,
and never beyond `most`, the number of all samples. Where all are 0, or all 1, it is P again.

pass@k and maj@k are exact, not drawn. Letters: N samples, S subsets, M members of a
subset, V different answers, P problems.
"""

import functools
import itertools
import math

import numpy as np

EQUAL = 1e-9  # in nats per token
SUBSETS = 200_000  # of 20 samples, all subsets of any size
NO_ANSWER = -1


def wilson(right: float, total: float, *, z: float) -> tuple[float, float]:
    """The lowest and highest share p that `right` of `total` is within z deviations of."""
    if not 0 <= right <= total:
        raise ValueError(f"right={right}, total={total}: needs 0 <= right <= total")
    if not 0 <= z < math.inf:
        raise ValueError(f"z={z}: needs a finite number of deviations, at least 0")
    if total == 0:
        return 0.0, 1.0
    share, square = right / total, z * z / total
    middle = share + square / 2
    reach = math.sqrt(square * (share * (1 - share) + square / 4))
    # None right: exactly 0, as √(x · x) = x in floating point. All right: 1 only up to rounding.
    low = max(0.0, (middle - reach) / (1 + square))
    high = 1.0 if right == total else min(1.0, (middle + reach) / (1 + square))
    return low, high


def mean_interval(value_P: np.ndarray, *, most: int, z: float) -> tuple[float, float]:
    """The interval of a mean over problems, of values from 0 to 1; `most` samples were drawn."""
    value_P = np.asarray(value_P, float)
    if value_P.ndim != 1 or not np.all((value_P >= 0) & (value_P <= 1)):
        raise ValueError("values of problems: needs one row of numbers from 0 to 1")
    problems = len(value_P)
    if most < problems:
        raise ValueError(f"most={most}: needs a sample for each of {problems} problems")
    if not problems:
        return wilson(0, 0, z=z)
    share, variance = float(value_P.mean()), float(value_P.var())
    # The quotient is at least 1, but for rounding and where all are 0 or all are 1.
    ratio = share * (1 - share) / max(variance, 1e-300)
    total = problems * max(1.0, min(ratio, most / problems))
    return wilson(share * total, total, z=z)


def checked(right_G: np.ndarray, k: int) -> np.ndarray:
    """`right_G` as an array; an error unless it is one row of booleans, with k of them to draw."""
    right_G = np.asarray(right_G)
    if right_G.ndim != 1 or right_G.dtype != bool:
        raise ValueError(f"right is {right_G.dtype} {right_G.shape}: needs one row of booleans")
    if not 1 <= k <= len(right_G):
        raise ValueError(f"k={k}, n={len(right_G)}: needs 1 <= k <= n")
    return right_G


def pass_at_k(right_G: np.ndarray, k: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold one that is right."""
    right_G = checked(right_G, k)
    n = len(right_G)
    total = math.comb(n, k)
    # In whole numbers up to the one division, which rounds once, however long they are.
    return (total - math.comb(n - int(right_G.sum()), k)) / total


@functools.lru_cache(maxsize=4)  # problems have the same n, and few k are asked for
def subsets(n: int, k: int) -> np.ndarray:
    """inside_NS: 1.0 where a sample is in a subset, 0.0 where it is not."""
    if math.comb(n, k) > SUBSETS:
        way_out = f"use k={n}, the one vote of all, or fewer samples"
        raise ValueError(f"k={k}, n={n}: more than {SUBSETS} subsets; {way_out}")
    members = itertools.chain.from_iterable(itertools.combinations(range(n), k))
    member_SM = np.fromiter(members, np.intp, math.comb(n, k) * k).reshape(-1, k)
    inside_NS = np.zeros((n, len(member_SM)))
    inside_NS[member_SM.T, np.arange(len(member_SM))] = 1.0
    inside_NS.setflags(write=False)  # it is shared
    return inside_NS


def maj_at_k(vote_G: np.ndarray, logprob_G: np.ndarray, right_G: np.ndarray, k: int) -> float:
    """The expected accuracy of a vote among k of the samples, drawn without replacement.

    `vote_G` numbers the answers from 0 on, NO_ANSWER where there is none; `logprob_G` has the mean
    log-prob of each completion.
    """
    right_G, vote_G = checked(right_G, k), np.asarray(vote_G)
    logprob_G = np.asarray(logprob_G, float)
    votes_G = vote_G != NO_ANSWER
    if not vote_G.shape == logprob_G.shape == right_G.shape:
        raise ValueError(f"shapes {vote_G.shape}, {logprob_G.shape}, {right_G.shape} differ")
    if vote_G.dtype.kind not in "iu" or np.any(vote_G < NO_ANSWER):
        raise ValueError(f"votes are whole numbers from {NO_ANSWER} on")
    if not np.isfinite(logprob_G[votes_G]).all():
        raise ValueError("the mean log-prob of a sample with an answer is not finite")
    if np.any(right_G & ~votes_G):
        raise ValueError("a sample without an answer is said to be right")
    is_VG = np.unique(vote_G[votes_G])[:, None] == vote_G
    right_V = np.any(is_VG & right_G, axis=1)
    if np.any(is_VG & right_V[:, None] & ~right_G):
        raise ValueError("samples of one answer are said to be right and wrong")
    inside_NS = subsets(len(vote_G), k)
    if not right_V.any():
        return 0.0
    count_VS = is_VG.astype(float) @ inside_NS
    top_S = np.maximum(count_VS.max(axis=0), 1)  # 1 where nobody votes: then nothing has the top
    mean_VS = np.where(is_VG, logprob_G, 0.0) @ inside_NS / top_S  # of those with the top count
    mean_VS[count_VS < top_S] = -np.inf
    wins_VS = (count_VS == top_S) & (mean_VS >= mean_VS.max(axis=0) - EQUAL)
    points_S = wins_VS[right_V].sum(axis=0) / np.maximum(wins_VS.sum(axis=0), 1)
    return float(points_S.mean())
