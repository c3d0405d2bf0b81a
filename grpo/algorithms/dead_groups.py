"""How often the rewards of a group are all equal, from n samples of each prompt.

    exact, G <= n   f_p = (Σ_v [C(c_v + k, G) - C(k, G)] + C(k, G)) / C(n, G)
    beyond n        f(G) = B(a + G - 1, b) / B(a, b)

f is the mean of f_p over prompts. c_v samples have the reward v, k have none (they abstained). f_p
is the chance that G of the n samples, drawn without replacement, have equal rewards or at most one:
unbiased for a group of G new samples, as pass@k is (arXiv:2107.03374). With two rewards, c of one,
it is [C(c, G) + C(n - c, G)] / C(n, G).

Beyond n there is only a fit. Let X be the chance that another completion of a prompt has the
reward of one drawn before: f(G) = E[X^(G-1)], whatever the number of values. X is taken for
Beta(a, b), which makes the equal ones of the G - 1 others beta-binomial; a and b are those of the
exact f at n / 2 and at n. Nothing in the data can say whether that shape is right.

A group of equal rewards has no advantage and teaches nothing (`group/zero_variance` in
docs/metrics.md; equal is as in advantages.py, up to rounding).
"""

import math
from collections.abc import Callable

import numpy as np

from grpo.algorithms.advantages import EQUAL

STEPS = 60  # of a bisection
LOG_B = (-12.0, 12.0)  # where ln b and ln a are looked for


def counts_of(reward_n: np.ndarray) -> tuple[list[int], int]:
    """How many samples have each reward, and how many have none."""
    reward_n = np.asarray(reward_n, float)
    valid = np.sort(reward_n[np.isfinite(reward_n)])
    counts: list[int] = []
    low = math.nan
    for value in valid.tolist():
        if counts and value - low <= EQUAL * max(abs(value), abs(low)):
            counts[-1] += 1
        else:
            counts.append(1)
            low = value
    return counts, len(reward_n) - len(valid)


def dead_chance(reward_n: np.ndarray, group: int) -> float:
    """f_p: the chance that `group` of a prompt's samples teach nothing."""
    n = len(reward_n)
    if not 1 <= group <= n:
        raise ValueError(f"group={group}, n={n}: needs 1 <= group <= n")
    counts, none = counts_of(reward_n)
    # In whole numbers up to the one division.
    without = math.comb(none, group)
    dead = without + sum(math.comb(count + none, group) - without for count in counts)
    return dead / math.comb(n, group)


def beta_fit(half: tuple[int, float], full: tuple[int, float]) -> tuple[float, float]:
    """a and b of the Beta whose f is the given one at two group sizes, the smaller one first."""
    (h, f_h), (n, f_n) = half, full
    if not (2 <= h < n and 0 < f_n <= f_h < 1):
        raise ValueError(f"f({h})={f_h}, f({n})={f_n}: needs 2 <= h < n and 0 < f(n) <= f(h) < 1")

    def a_for(b: float) -> float:
        """The a with f(n) as given: f grows with a."""
        return bisected(lambda a: log_moment(a, b, n - 1) - math.log(f_n))

    # With f(n) fixed, f(h) grows with b: from f(n), all of X in 0 and 1, to one value of X.
    b = bisected(lambda b: log_moment(a_for(b), b, h - 1) - math.log(f_h))
    return a_for(b), b


def bisected(rising: Callable[[float], float]) -> float:
    """Where a rising function of a positive number is 0, or the end where it is nearest."""
    low, high = LOG_B
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(math.exp(middle)) > 0 else (middle, high)
    return math.exp((low + high) / 2)


def log_moment(a: float, b: float, power: int) -> float:
    """ln E[X^power] of X ~ Beta(a, b): Π_i (a + i) / (a + b + i)."""
    return sum(math.log1p(-b / (a + b + i)) for i in range(power))


def dead_share(reward_Pn: np.ndarray, group: int) -> float:
    """f: the share of groups of a size that teach nothing, over prompts; fitted beyond n."""
    n = reward_Pn.shape[1]
    if group <= n:
        return float(np.mean([dead_chance(reward_n, group) for reward_n in reward_Pn]))
    half = max(2, n // 2)
    f_h, f_n = dead_share(reward_Pn, half), dead_share(reward_Pn, n)
    if f_n == 0 or f_h == 1 or half == n:
        return f_n  # nothing to fit: at most this
    a, b = beta_fit((half, f_h), (n, f_n))
    return math.exp(log_moment(a, b, group - 1))
