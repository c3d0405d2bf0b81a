"""Curves over seeds: the running evaluations of a stage, with Student's interval as a band.

A point is the mean over all seeds that the ablation has, at an update that each of them evaluated;
an update that one of them lacks is a gap. Cells that are not there are in no curve, and the curve's
name says of how many seeds it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grpo.reporting.cells import Cell
from grpo.reporting.comparison import LEVEL, Comparison
from grpo.reporting.comparison_tables import is_share
from grpo.reporting.curve import Series, curve_svg
from grpo.statistics.student import Estimate, mean_over_seeds
from grpo.storage.journal import read_journal


class Band(NamedTuple):
    """The curve of an ablation; None is a gap."""

    ablation: str
    seeds: int
    steps: list[int]
    points: list[Estimate | None]


def bands(cells: Sequence[Cell], found: Comparison) -> list[Band]:
    """The curves of the ablations that have one, in the order of the table."""
    curves = []
    for row in found.rows:
        own = [cell for cell in cells if cell.ablation == row.ablation and cell.value is not None]
        if own and (band := band_of(row.ablation, [evaluations(cell) for cell in own])).steps:
            curves.append(band)
    return curves


def evaluations(cell: Cell) -> dict[int, float]:
    """The metric after each update that was evaluated."""
    name = f"eval/{cell.metric}"
    rows = read_journal(cell.directory / "metrics.jsonl")
    return {
        row["step"]: row[name]
        for row in rows
        if row.get("stage") == cell.policy and row.get(name) is not None and "step" in row
    }


def band_of(ablation: str, of_seeds: Sequence[dict[int, float]]) -> Band:
    """The mean of several runs."""
    steps = sorted({step for of_one in of_seeds for step in of_one})
    points = [
        mean_over_seeds(np.array([of_one[step] for of_one in of_seeds]), level=LEVEL)
        if all(step in of_one for of_one in of_seeds)
        else None
        for step in steps
    ]
    return Band(ablation, len(of_seeds), steps, points)


def series_of(band: Band, seeds: int) -> Series:
    """A curve to be drawn; its name says if it is of fewer seeds than the sweep has."""
    y, low, high = (
        [None if point is None else point[n] for point in band.points] for n in range(3)
    )
    name = band.ablation if band.seeds == seeds else f"{band.ablation} ({band.seeds} of {seeds})"
    return Series(name, band.steps, y, low, high)


def bands_svg(found: Comparison, curves: Sequence[Band]) -> str:
    """The drawing; of one seed a line without a band."""
    return curve_svg(
        [series_of(band, found.seeds) for band in curves],
        title=f"{found.metric} while training, mean of {found.seeds} seeds",
        x_label=f"update of {' or '.join(found.policies)}", y_label="95 % over seeds",
        percent=is_share(found.metric),
    )  # fmt: skip
