"""A sweep as one HTML file: its verdicts, each difference as a drawing, curves, every cell.

What the columns mean is said in docs/statistics.md. A line of the comparison is an ablation; its
difference to the base stands on one axis with the others, so that intervals that reach over zero
are seen. Curves are of an ablation beside the base. A cell that is not there is in no mean, and in
the table of cells with its reason; one that has a report leads to it.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.bands import Band, bands, series_of
from grpo.reporting.cells import BASE, DONE, Cell, rows_of
from grpo.reporting.comparison import LEVEL, Comparison, Row
from grpo.reporting.comparison_tables import chance, is_share, markdown, reading
from grpo.reporting.html.chart import chart
from grpo.reporting.html.markup import code, escaped, folded, paragraph, section, table
from grpo.reporting.html.metric_table import about
from grpo.reporting.html.overview import SIGNS, tile
from grpo.reporting.html.page import page
from grpo.reporting.text import duration, number

FOREST = 180  # pixels of the axis of differences
Rows = Sequence[Mapping[str, Any]]


def sweep_report(sweep: pathlib.Path, found: Comparison, cells: Sequence[Cell]) -> str:
    """The page of a sweep that was compared."""
    rows = rows_of(sweep)
    sections = [
        comparison(found),
        curves(found, bands(cells, found)),
        every_cell(sweep, found, cells, rows),
        changes(rows),
    ]
    return page(sweep.name, head(sweep.name, found, rows), sections)


def head(name: str, found: Comparison, rows: Rows) -> str:
    """What the sweep is, how far it is, and what may be said."""
    states = [row["state"] for row in rows]
    state = "finished" if set(states) == {DONE} else "failed" if "failed" in states else "running"
    tiles = [
        tile("cells", f"{states.count(DONE)} <small>of {len(rows)}</small>", counts(states)),
        tile("compared", escaped(found.metric), escaped(f"of {' and '.join(found.policies)}"),
             escaped(f"{found.seeds} seeds, against {found.baseline}")),
        tile("verdicts", *verdicts(found)),
        tile("time", duration(sum(row.get("seconds") or 0.0 for row in rows)),
             "of all cells, one after the other, without what they share"),
    ]  # fmt: skip
    return "\n".join([
        '<header id="overview">',
        f'<p class="state {state}"><span aria-hidden="true">{SIGNS[state]}</span> {state}</p>',
        f"<h1>{escaped(name)}</h1>",
        f'<div class="tiles">{"".join(tiles)}</div>',
        "</header>",
    ])  # fmt: skip


def counts(states: Sequence[str]) -> str:
    """How many cells are in each state."""
    return ", ".join(f"{states.count(state)} {escaped(state)}" for state in dict.fromkeys(states))


def verdicts(found: Comparison) -> list[str]:
    """How many differences are shown, and which."""
    shown = [row for row in found.rows if not math.isnan(row.p) and row.p <= 1 - LEVEL]
    said = [f"{code(row.ablation)} {escaped(row.verdict)}" for row in shown[:6]]
    of = f"of {found.tests} differences shown, after Holm's correction"
    return [f"{len(shown)} <small>shown</small>", of, *said]


def comparison(found: Comparison) -> str:
    """The section of the ranked table."""
    unit = ", %" if (is_percent := is_share(found.metric)) else ""
    ends = [x for row in found.rows if row.difference for x in row.difference[:3]]
    widest = max((abs(x) for x in ends if math.isfinite(x)), default=0.0) or 1.0
    points = f"{100 * widest:.1f} points" if is_percent else number(widest)
    header = ["ablation", "seeds", f"mean{unit}", "difference", f"−{points} to +{points}", "p",
              "verdict"]  # fmt: skip
    lines = [line_of(row, found, widest) for row in found.rows]
    return section(
        "comparison", "Comparison", table(header, lines, caption="ranked by the difference"),
        paragraph(reading(found)), folded("as text", f"<pre>{escaped(markdown(found))}</pre>"),
    )  # fmt: skip


def line_of(row: Row, found: Comparison, widest: float) -> list[str]:
    """A line of it."""
    if not row.seeds:
        return [code(row.ablation), f"0 of {found.seeds}", "", "", "", "", escaped(row.verdict)]
    is_percent = is_share(found.metric)
    seeds = str(row.seeds) if row.seeds == found.seeds else f"{row.seeds} of {found.seeds}"
    mean = with_interval(row.mean, is_percent)
    difference = with_interval(row.difference, is_percent, "+") if row.difference else ""
    drawn = forest(row.difference[:3], widest) if row.difference else ""
    return [code(row.ablation), seeds, mean, difference, drawn, chance(row.p), escaped(row.verdict)]


def with_interval(one: Sequence[float], is_percent: bool, sign: str = "") -> str:
    """A value and its interval, in percent or points where it is a share."""
    value, low, high = (f"{100 * x:{sign}.1f}" if is_percent else number(x) for x in one[:3])
    return value if math.isnan(one[1]) else f"{value} <small>{low} to {high}</small>"


def forest(difference: Sequence[float], widest: float) -> str:
    """A difference as a point and its interval as a line, beside zero."""
    value, low, high = (2 + FOREST * (1 + x / widest) / 2 for x in difference)
    line = "" if math.isnan(low) else f'<path class="line c0" d="M{low:.1f} 8H{high:.1f}"/>'
    return (
        f'<svg class="forest" viewBox="0 0 {FOREST + 4} 16" aria-hidden="true">'
        f'<path class="grid" d="M2 8H{FOREST + 2}"/><path class="zero" d="M{2 + FOREST / 2} 0V16"/>'
        f'{line}<circle class="c0" cx="{value:.1f}" cy="8" r="3.5"/></svg>'
    )


def curves(found: Comparison, drawn: Sequence[Band]) -> str:
    """The section of curves: each ablation with the base beside it."""
    series = {band.ablation: series_of(band, found.seeds) for band in drawn}
    base = series.pop(found.baseline, None)
    metric = about(f"eval/{found.metric}")
    figures = [
        chart(name, [one, base._replace(low=None, high=None, faint=True)] if base else [one],
              metric, x_label="update")
        for name, one in series.items()
    ] or [chart(found.baseline, [base], metric, x_label="update") if base else ""]  # fmt: skip
    if not any(figures):
        return ""
    remark = f"{found.metric} while training, mean over seeds; bands are of 95 % over seeds."
    return section(
        "curves", "Curves", f'<div class="charts">{"".join(figures)}</div>', paragraph(remark)
    )


def every_cell(sweep: pathlib.Path, found: Comparison, cells: Sequence[Cell], rows: Rows) -> str:
    """The section of all cells: a line per ablation, a column per seed."""
    seeds = sorted({cell.seed for cell in cells})
    by_place = {(cell.ablation, cell.seed): cell for cell in cells}
    folders = {(row["ablation"] or BASE, row["seed"]): row["directory"] for row in rows}
    lines = []
    for ablation in dict.fromkeys(cell.ablation for cell in cells):
        line = [code(ablation)]
        for seed in seeds:
            cell = by_place.get((ablation, seed))
            text = "" if cell is None else shown(cell, is_share(found.metric))
            folder = folders.get((ablation, seed))
            if folder and (sweep / folder / "report.html").is_file():
                text = f'<a href="{escaped(folder)}/report.html">{text}</a>'
            line.append(text)
        lines.append(line)
    return section("cells", "Cells", table(["ablation", *(f"seed {s}" for s in seeds)], lines))


def shown(cell: Cell, is_percent: bool) -> str:
    """The value of a cell, or why there is none."""
    if cell.value is None:
        return f"<small>{escaped(cell.reason)}</small>"
    return f"{100 * cell.value:.1f}" if is_percent else number(cell.value)


def changes(rows: Rows) -> str:
    """The section of what each ablation changes."""
    lines: dict[str, Sequence[str]] = {}
    for row in rows:
        changed = row.get("changed") or {}
        said = "<br>".join(code(f"{path} = {value!r}") for path, value in changed.items())
        name = row["ablation"] or BASE
        lines.setdefault(name, [code(name), said or "nothing"])
    return section(
        "changes", "What each one changes", table(["ablation", "leaves"], lines.values())
    )
