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
from collections.abc import Sequence

from grpo.checks.arguments import command_line
from grpo.reporting.cells import Asked, CellError
from grpo.reporting.comparison_files import AS_USUAL, compared, write_comparison
from grpo.reporting.comparison_tables import markdown
from grpo.storage.journal import JournalError


def comparison(sweep: pathlib.Path, *, asked: Asked, baseline: str | None, is_written: bool) -> str:
    """The table of a sweep."""
    found, cells = compared(sweep, asked, baseline)
    if is_written:
        write_comparison(sweep, found, cells)
    return markdown(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = command_line("compare", __doc__)
    parser.add_argument("sweep", type=pathlib.Path)
    parser.add_argument("--baseline")
    parser.add_argument("--metric", default=AS_USUAL.metric)
    parser.add_argument("--policy")
    parser.add_argument("--stage")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args(arguments)
    asked = Asked(flags.metric, flags.policy, flags.stage)
    try:
        text = comparison(flags.sweep, asked=asked, baseline=flags.baseline, is_written=flags.write)
    except (CellError, JournalError) as error:
        sys.exit(str(error))
    print(text, end="")


if __name__ == "__main__":
    main()
