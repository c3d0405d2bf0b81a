"""A comparison of ablations in words: Markdown for people, CSV for programs.

Shares are in percent, and their differences in points. CSV has plain numbers, and a line for each
ablation as well: what cannot be told is empty there.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from grpo.reporting.cells import SAMPLED
from grpo.reporting.comparison import BOTH, Comparison, Row
from grpo.reporting.progress import table
from grpo.reporting.text import number, printable

SHARES = ("accuracy/", "mean@", "pass@", "maj@", "format/strict", "format/demo", "truncated")
COLUMNS = (
    "rank", "ablation", "seeds", "of", "mean", "mean_low", "mean_high", "pairs", "over",
    "difference", "difference_low", "difference_high", "seeds_low", "seeds_high", "p_holm", "iqm",
    "iqm_low", "iqm_high", "improvement", "improvement_low", "improvement_high",
    "variance_unpaired", "variance_paired", "needed", "verdict",
)  # fmt: skip


def markdown(found: Comparison) -> str:
    """The table, what is missing, and how to read it."""
    unit = ", %" if is_share(found.metric) else ""
    header = ["ablation", "seeds", f"mean{unit}", "difference", "p", "IQM", "P(better)", "pairing",
              "verdict"]  # fmt: skip
    lines = [line_of(row, found) for row in found.rows]
    parts = [f"# {found.metric} of {' and '.join(found.policies) or 'no policy'}",
             table(header, lines), *missing(found), reading(found)]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def line_of(row: Row, found: Comparison) -> list[str]:
    """A line of the table."""
    if not row.seeds:
        return [row.ablation, f"0 of {found.seeds}", "", "", "", "", "", "", row.verdict]
    is_percent = is_share(found.metric)
    seeds = str(row.seeds) if row.seeds == found.seeds else f"{row.seeds} of {found.seeds}"
    difference = interval(row.difference, is_percent, sign="+")
    if row.difference and row.pairs != found.seeds:
        difference += f", {row.pairs} pairs"
    pays = row.variances.ratio if row.variances else math.nan
    return [
        row.ablation, seeds, interval(row.mean, is_percent), difference, chance(row.p),
        interval(row.iqm, is_percent), interval(row.improvement, False, digits=2),
        "" if math.isnan(pays) else f"{pays:.1f}", row.verdict,
    ]  # fmt: skip


def missing(found: Comparison) -> list[str]:
    """The cells that are not there, with their reasons."""
    if not found.missing:
        return []
    lines = [
        f"- {printable(cell.ablation)}, seed {cell.seed}: {printable(cell.reason)}"
        for cell in found.missing
    ]
    return [f"Not there, and in no mean ({len(lines)} cells):\n\n" + "\n".join(lines)]


def reading(found: Comparison) -> str:
    """How the columns are to be read."""
    overs = dict.fromkeys(row.over for row in found.rows if row.over)
    over = " or ".join(f"over {name}" for name in overs) or "none"
    problems = "; pairs are of seeds and of problems" if BOTH in overs else ""
    return (
        f"Evaluated by {' and '.join(found.stages) or 'none'}. Mean: over seeds. Difference: to "
        f"{found.baseline}, on the seeds of both, {over}{problems}. Intervals of 95 %. p: after "
        f"Holm's correction over {found.tests} comparisons. IQM and P(better), the chance that a "
        "seed of it is above one of the base: bootstrap over seeds, which few seeds make too "
        "narrow; no verdict rests on it. Pairing: by how much it divides the variance of the "
        "difference. Seeds that would show a difference: with 80 %, if it is as large as it looks."
    )


def csv_text(found: Comparison) -> str:
    """A line per ablation."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, row in enumerate(found.rows, start=1):
        pays, seeds = row.variances or (None, None), row.over_seeds
        cells = [
            rank, row.ablation, row.seeds, found.seeds, *row.mean[:3], row.pairs, row.over,
            *three(row.difference), *three(seeds)[1:], row.p, *row.iqm, *three(row.improvement),
            *pays, row.needed, row.verdict,
        ]  # fmt: skip
        writer.writerow(["" if is_unknown(cell) else cell for cell in cells])
    return out.getvalue()


def three(one: Sequence[float] | None) -> Sequence[float | None]:
    """Value, low and high."""
    return (None, None, None) if one is None else one[:3]


def is_unknown(cell: Any) -> bool:
    """Whether there is nothing to write."""
    return cell is None or (isinstance(cell, float) and not math.isfinite(cell))


def is_share(metric: str) -> bool:
    """Whether a metric is shown in percent."""
    return metric.removeprefix(SAMPLED).startswith(SHARES)


def interval(
    one: Sequence[float] | None, is_percent: bool, *, sign: str = "", digits: int = 1
) -> str:
    """A value with its interval, if it has one."""
    if one is None or math.isnan(one[0]):
        return ""
    if is_percent or digits == 2:
        value, low, high = (f"{(100 if is_percent else 1) * x:{sign}.{digits}f}" for x in one[:3])
    else:
        value, low, high = (number(x) for x in one[:3])
    return value if math.isnan(one[1]) else f"{value} ({low} to {high})"


def chance(p: float) -> str:
    """A p, with as many digits as mean something."""
    if math.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
