"""The ablations of a sweep against its base: python -m grpo.tools.compare SWEEP

SWEEP               the directory of a sweep, which has cells.jsonl
--baseline=NAME     what they are compared with; without it what the sweep says, or its base
--metric=NAME       of evaluations/<stage>.json: accuracy/strict, accuracy/lenient, pass@4, ...
--policy=NAME       which policy; without it each run's last GRPO stage
--stage=NAME        which evaluation; without it each run's last one
--write             writes table.md, table.csv and curves.svg into the directory as well

What the columns mean: docs/statistics.md. Runs are read, never written.
"""

import pathlib
import sys

from absl import app, flags

from grpo.reporting.bands import bands, bands_svg
from grpo.reporting.cells import Asked, CellError, baseline_of, read_cells, rows_of
from grpo.reporting.comparison import compare
from grpo.reporting.comparison_tables import csv_text, markdown
from grpo.storage.journal import JournalError

BASELINE = flags.DEFINE_string("baseline", None, "What the ablations are compared with.")
METRIC = flags.DEFINE_string("metric", "accuracy/strict", "What is compared.")
POLICY = flags.DEFINE_string("policy", None, "Whose; the last GRPO stage.")
STAGE = flags.DEFINE_string("stage", None, "Measured by which evaluation; the last one.")
WRITE = flags.DEFINE_bool("write", False, "Also write the table and the curves.")


def comparison(sweep: pathlib.Path, *, asked: Asked, baseline: str | None, is_written: bool) -> str:
    """The table of a sweep."""
    rows = rows_of(sweep)
    cells = read_cells(rows, sweep, asked)
    found = compare(cells, baseline or baseline_of(sweep, rows))
    text = markdown(found)
    if is_written:
        (sweep / "table.md").write_text(text, "utf-8")
        (sweep / "table.csv").write_text(csv_text(found), "utf-8")
        if curves := bands(cells, found):
            (sweep / "curves.svg").write_text(bands_svg(found, curves), "utf-8")
    return text


def main(argv: list[str]) -> int:
    """Prints the table."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    asked = Asked(METRIC.value, POLICY.value, STAGE.value)
    try:
        text = comparison(
            pathlib.Path(argv[1]), asked=asked, baseline=BASELINE.value, is_written=WRITE.value
        )
    except (CellError, JournalError) as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
