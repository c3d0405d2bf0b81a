"""Ablations against their base, ranked: what a table of a sweep says, as data.

    mean          over the seeds an ablation has, Student's interval over seeds
    difference    to the base, mean over the seeds that both have; over seeds and problems where
                  both answered the same ones (grpo/statistics/problems.py), else over seeds alone
    p             of the difference, after Holm's correction over all rows
    iqm           interquartile mean over seeds; improvement: P(a seed of it > one of the base);
                  both with intervals by bootstrap, which are narrow (grpo/statistics/interquartile)
    pays          variance of the unpaired difference / of the paired one, over seeds
    needed        seeds that would show a difference of this size with 80 %, at the level that the
                  first of Holm's tests has; MORE_PROBLEMS where no number of them would
    rank          by the difference, the base at 0; what has none stands last

A cell that is not there is in `missing`, and no other one stands for it: an ablation with four of
five seeds is compared on these four. What failed may well be what was bad: a row with fewer seeds
than the others looks better than it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grpo.reporting.cells import SAMPLED, Cell, CellError
from grpo.statistics.holm import holm
from grpo.statistics.interquartile import (
    Interval,
    bootstrap,
    interquartile_mean,
    probability_of_improvement,
)
from grpo.statistics.pairing import Pairing, pairing
from grpo.statistics.power import MOST, power_of_all_seeds, seeds_needed
from grpo.statistics.problems import Parts, over_seeds_and_problems, parts_of
from grpo.statistics.student import Estimate, mean_over_seeds, paired_difference, variance

LEVEL, CHANCE, DRAWS = 0.95, 0.8, 2000
MORE_PROBLEMS = math.inf
BOTH, SEEDS, OTHERS = "seeds and problems", "seeds", "seeds, whose problems differ"
HIGHER_IS_BETTER = ("accuracy/", "mean@", "pass@", "maj@", "format/")


class Row(NamedTuple):
    """An ablation; what cannot be told is NaN or None."""

    ablation: str
    seeds: int  # that are there
    mean: Estimate
    iqm: Interval
    pairs: int = 0  # seeds that are there of the base too
    over: str = ""  # what the difference is over
    difference: Estimate | None = None  # None of the base, and without pairs
    over_seeds: Estimate | None = None  # the same over seeds alone
    p: float = math.nan  # after Holm
    improvement: Interval | None = None
    variances: Pairing | None = None  # of the difference, over seeds
    needed: float | None = None  # None: more than are thought of
    verdict: str = ""


class Comparison(NamedTuple):
    """A table, its rows ranked."""

    metric: str
    policies: tuple[str, ...]
    stages: tuple[str, ...]
    baseline: str
    seeds: int  # that the sweep asked for
    tests: int  # that Holm's correction is over
    rows: list[Row]
    missing: list[Cell]


class Pairs(NamedTuple):
    """The cells of an ablation and of the base, of the same seeds in one order."""

    own: list[Cell]
    base: list[Cell]

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the metric."""
        return values(self.own), values(self.base)

    def over(self) -> str:
        """What their difference is over."""
        both = [*zip(self.own, self.base, strict=True)]
        if not all(own.problems and base.problems for own, base in both):
            return SEEDS
        return BOTH if all(x.problems.keys() == y.problems.keys() for x, y in both) else OTHERS

    def parts(self) -> Parts:
        """What the difference is made of."""
        x_S, y_S = self.values()
        if self.over() == BOTH:
            return parts_of(self.difference_SP())
        return Parts(float((x_S - y_S).mean()), len(x_S), variance(x_S - y_S), 0.0, 0.0)

    def difference_SP(self) -> np.ndarray:
        """By problem, a column for each; NaN where a seed does not have it."""
        every = sorted({problem for cell in self.own for problem in cell.problems})
        column = {problem: p for p, problem in enumerate(every)}
        difference_SP = np.full((len(self.own), len(every)), np.nan)
        for s, (own, base) in enumerate(zip(self.own, self.base, strict=True)):
            for problem, value in own.problems.items():
                difference_SP[s, column[problem]] = value - base.problems[problem]
        return difference_SP


def values(cells: Sequence[Cell]) -> np.ndarray:
    """The values of cells that have one."""
    return np.array([cell.value for cell in cells], float)


def pairs_of(cells: Sequence[Cell], base: Sequence[Cell]) -> Pairs:
    """Those of the seeds that both have."""
    of_base = {cell.seed: cell for cell in base}
    own = sorted((cell for cell in cells if cell.seed in of_base), key=lambda cell: cell.seed)
    return Pairs(own, [of_base[cell.seed] for cell in own])


def compare(cells: Sequence[Cell], baseline: str) -> Comparison:
    """The table."""
    there = [cell for cell in cells if cell.value is not None]
    by_name: dict[str, list[Cell]] = {cell.ablation: [] for cell in cells}
    if baseline not in by_name:
        raise CellError(f"baseline={baseline}: the sweep has {', '.join(by_name)}")
    for cell in there:
        by_name[cell.ablation].append(cell)
    base, metric = by_name[baseline], cells[0].metric
    rows = [
        alone(name, own) if name == baseline else beside(alone(name, own), own, base)
        for name, own in by_name.items()
    ]
    rows = judged(rows, {name: pairs_of(own, base) for name, own in by_name.items()})
    return Comparison(
        metric,
        tuple(dict.fromkeys(cell.policy for cell in there)),
        tuple(dict.fromkeys(cell.stage for cell in there)),
        baseline,
        len({cell.seed for cell in cells}),
        sum(not math.isnan(row.p) for row in rows),
        [row._replace(verdict=verdict(row, metric, baseline)) for row in ranked(rows, baseline)],
        [cell for cell in cells if cell.value is None],
    )


def alone(name: str, cells: Sequence[Cell]) -> Row:
    """What an ablation is by itself."""
    mean = mean_over_seeds(values(cells), level=LEVEL)
    iqm = Interval(math.nan, math.nan, math.nan)
    if cells:
        score_ST = values(cells)[:, None]
        iqm = bootstrap(interquartile_mean, score_ST, level=LEVEL, draws=DRAWS, seed=0)
    return Row(name, len(cells), mean, iqm)


def beside(row: Row, cells: Sequence[Cell], base: Sequence[Cell]) -> Row:
    """What it is to the base; p is not yet corrected."""
    pairs = pairs_of(cells, base)
    if not pairs.own:
        return row
    x_S, y_S = pairs.values()
    over_seeds = paired_difference(x_S, y_S, level=LEVEL)
    difference, over = over_seeds, pairs.over()
    if over == BOTH:
        difference = over_seeds_and_problems(pairs.difference_SP(), level=LEVEL)
    improvement = bootstrap(
        probability_of_improvement, values(cells)[:, None], values(base)[:, None],
        level=LEVEL, draws=DRAWS, seed=0,
    )  # fmt: skip
    return row._replace(
        pairs=len(pairs.own), over=over, difference=difference, over_seeds=over_seeds,
        p=difference.p, improvement=improvement, variances=pairing(x_S, y_S),
    )  # fmt: skip


def judged(rows: Sequence[Row], pairs: Mapping[str, Pairs]) -> list[Row]:
    """The rows with p corrected, and the seeds needed where no difference is shown."""
    p_M = holm(np.array([row.p for row in rows]))
    alpha = (1 - LEVEL) / max(int((~np.isnan(p_M)).sum()), 1)
    return [
        row._replace(
            p=float(p), needed=needed_of(pairs[row.ablation], alpha) if p > 1 - LEVEL else None
        )
        for row, p in zip(rows, p_M, strict=True)
    ]


def needed_of(pairs: Pairs, alpha: float) -> float | None:
    """How many seeds would show a difference of the size there is."""
    parts = pairs.parts()
    if parts.value and power_of_all_seeds(parts, alpha=alpha) < CHANCE:
        return MORE_PROBLEMS
    return seeds_needed(parts, alpha=alpha, chance=CHANCE)


def ranked(rows: Sequence[Row], baseline: str) -> list[Row]:
    """The largest difference first; equal ones in the order of the sweep."""

    def place(row: Row) -> tuple[float, float]:
        known = 0.0 if row.ablation == baseline and row.seeds else -math.inf
        by_difference = row.difference.value if row.difference else known
        return by_difference, row.mean.value if row.seeds else -math.inf

    return sorted(rows, key=place, reverse=True)


def verdict(row: Row, metric: str, baseline: str) -> str:
    """What may be said of a row, in words."""
    if row.ablation == baseline:
        return "the base"
    if row.difference is None:
        return "not told: no seed that the base has too"
    if math.isnan(row.p):
        seeds = "one seed" if row.pairs == 1 else "all seeds differ by the very same number"
        return f"not told: {seeds}"
    if row.p <= 1 - LEVEL:
        is_good = metric.removeprefix(SAMPLED).startswith(HIGHER_IS_BETTER)
        up, down = ("better", "worse") if is_good else ("higher", "lower")
        return up if row.difference.value > 0 else down
    if row.difference.value == 0:
        return "no difference shown: none was seen"
    if row.needed == MORE_PROBLEMS:
        return "no difference shown; one of this size needs more problems, not only seeds"
    many = (
        f"more than {MOST:,}"
        if row.needed is None
        else f"about {max(row.needed, row.pairs + 1):.0f}"
    )
    return f"no difference shown; {many} seeds would show one of this size"
