"""The comparison of a sweep's cells, and the files that it leaves in the sweep's directory.

table.md, table.csv     the ranked table, for people and for programs
curves.svg              running evaluations, mean over seeds, if there were any
report.html             all of it as one page (grpo/reporting/html/sweep_report.py)
"""

import pathlib
from collections.abc import Sequence

from grpo.reporting.bands import bands, bands_svg
from grpo.reporting.cells import Asked, Cell, baseline_of, read_cells, rows_of
from grpo.reporting.comparison import Comparison, compare
from grpo.reporting.comparison_tables import csv_text, markdown
from grpo.reporting.html.report import FILE
from grpo.reporting.html.sweep_report import sweep_report
from grpo.storage.whole import put

AS_USUAL = Asked("accuracy/strict", None, None)  # greedy, of the last GRPO stage, measured last


def compared(
    sweep: pathlib.Path, asked: Asked, baseline: str | None
) -> tuple[Comparison, list[Cell]]:
    """The comparison, and the cells that it is of."""
    rows = rows_of(sweep)
    cells = read_cells(rows, sweep, asked)
    return compare(cells, baseline or baseline_of(sweep, rows)), cells


def write_comparison(sweep: pathlib.Path, found: Comparison, cells: Sequence[Cell]) -> None:
    """Writes the files, each as a whole, where it is not the same already."""
    put(sweep / "table.md", markdown(found).encode())
    put(sweep / "table.csv", csv_text(found).encode())
    if curves := bands(cells, found):
        put(sweep / "curves.svg", bands_svg(found, curves).encode())
    put(sweep / FILE, sweep_report(sweep, found, cells).encode())
