"""What docs/metrics.md says of each metric: the page's own tables, read as they are.

`metrics.md` beside this file is that page: a link in the repository, a copy in a wheel. So there is
one source, for readers of the documentation and of reports.

A table counts whose first column is `name`; the names in a first cell are those in backticks, and
`<name>` in one stands for anything but a slash; a name of such places alone would be any, and is
passed over. `eval/x`, `sampled/x` are what x is in the tables
of evaluations, `x/low` and `x/high` the ends of its interval.
"""

import functools
import pathlib
import re
from typing import NamedTuple

from grpo.reporting.html.markup import escaped

PAGE = pathlib.Path(__file__).with_name("metrics.md")
CELL = re.compile(r"(?<!\\)\|")
PLACE = "<[^>]+>"
MEASURED = ("eval/", "sampled/")


class About(NamedTuple):
    """What is known of a metric, as Markdown; empty what the page does not say."""

    name: re.Pattern
    formula: str
    unit: str
    healthy: str


@functools.cache
def metric_table() -> tuple[About, ...]:
    """Every name of the page, in its order."""
    return tuple(read_tables(PAGE.read_text("utf-8")))


def read_tables(page: str) -> list[About]:
    """The names of all tables of a page in Markdown."""
    found, columns = [], []
    for line in page.splitlines():
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells(line)
        elif columns[0] == "name" and set(line) - set("|-: "):
            row = dict(zip(columns, cells(line), strict=False))
            formula = row.get("formula") or row.get("counts", "")
            for name in re.findall(r"`([^`]+)`", row["name"]):
                if re.sub(PLACE, "", name).strip("/"):
                    rest = row.get("unit", ""), row.get("healthy", "")
                    found.append(About(pattern(name), formula, *rest))
    return found


def cells(line: str) -> list[str]:
    """The cells of a row."""
    return [cell.strip().replace("\\|", "|") for cell in CELL.split(line.strip().strip("|"))]


def pattern(name: str) -> re.Pattern:
    """A name, with <...>, and the k and n of pass@k and mean@n, for what may stand there."""
    parts = re.split(rf"{PLACE}|(?<=@)[kn]\b", name)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def about(name: str) -> About | None:
    """What the page says of a metric; a name written out goes before one with places."""
    for prefix in MEASURED:
        name = name.removeprefix(prefix)
    name = re.sub("/(low|high)$", "", name) if name.count("/") > 1 or "@" in name else name
    known = [entry for entry in metric_table() if entry.name.fullmatch(name)]
    return min(known, key=lambda entry: "[^/]+" in entry.name.pattern, default=None)


def markdown(text: str) -> str:
    """A cell as HTML: code and bold are all it has."""
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
