"""The ablations of a sweep against its base: python -m grpo.tools.compare SWEEP

SWEEP               the directory of a sweep, which has cells.jsonl
--baseline=NAME     what they are compared with; without it what the sweep says, or its base
--metric=NAME       of evaluations/<stage>.json: accuracy/strict, accuracy/lenient, pass@4, ...
--policy=NAME       which policy; without it each run's last GRPO stage
--stage=NAME        which evaluation; without it each run's last one
--write             writes table.md, table.csv, curves.svg and report.html there as well

What the columns mean: docs/statistics.md. Runs are read, never written.
"""

import pathlib
import sys

from absl import app, flags

from grpo.reporting.cells import Asked, CellError
from grpo.reporting.comparison_files import AS_USUAL, compared, write_comparison
from grpo.reporting.comparison_tables import markdown
from grpo.storage.journal import JournalError

BASELINE = flags.DEFINE_string("baseline", None, "What the ablations are compared with.")
METRIC = flags.DEFINE_string("metric", AS_USUAL.metric, "What is compared.")
POLICY = flags.DEFINE_string("policy", None, "Whose; the last GRPO stage.")
STAGE = flags.DEFINE_string("stage", None, "Measured by which evaluation; the last one.")
WRITE = flags.DEFINE_bool("write", False, "Also write the table and the curves.")


def comparison(sweep: pathlib.Path, *, asked: Asked, baseline: str | None, is_written: bool) -> str:
    """The table of a sweep."""
    found, cells = compared(sweep, asked, baseline)
    if is_written:
        write_comparison(sweep, found, cells)
    return markdown(found)


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
