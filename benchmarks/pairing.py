"""What pairing pays in a sweep: variances of differences with pairs and without, on equal seeds.

    python benchmarks/pairing.py SWEEP [--baseline=NAME] [--metric=accuracy/strict] [--policy=NAME]

over seeds       s_x² + s_y² against s_(x - y)² of the cells' values (grpo/statistics/pairing.py)
over problems    the same of the answers of one seed, x and y on the same problems; the mean over
                 seeds: what is left of chance with one seed

in points of the metric where it is a share. The last lines are means over the ablations, and over
all pairs of cells' ablations, the base or not: single ratios of a few seeds say little.
"""

import argparse
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from grpo.reporting.cells import Asked, Cell, baseline_of, read_cells, rows_of
from grpo.reporting.comparison import BOTH, Pairs, pairs_of
from grpo.reporting.comparison_tables import is_share
from grpo.reporting.progress import table
from grpo.statistics.pairing import Pairing, pairing, pooled

HEADER = ("", "pairs", "unpaired, over seeds", "paired", "ratio", "unpaired, over problems",
          "paired", "ratio")  # fmt: skip


def over_problems(pairs: Pairs) -> Pairing | None:
    """Of the answers of a seed, the mean over seeds; None where the problems are not the same."""
    if pairs.over() != BOTH:
        return None
    found = []
    for own, base in zip(pairs.own, pairs.base, strict=True):
        x_P, y_P = (np.array([cell.problems[p] for p in own.problems]) for cell in (own, base))
        found.append(pairing(x_P, y_P))
    total = pooled(found)
    return Pairing(total.unpaired / len(found), total.paired / len(found))


def line(name: str, count: int, found: Sequence[Pairing | None], scale: float) -> list[str]:
    """A line of the table."""
    cells = [name, str(count)]
    for one in found:
        if one is None:
            cells += ["", "", ""]
        else:
            cells += [f"{scale**2 * x:.2f}" for x in one] + [f"{one.ratio:.2f}"]
    return cells


def report(by_name: dict[str, list[Cell]], baseline: str, metric: str) -> str:
    """The table."""
    scale = 100.0 if is_share(metric) else 1.0
    lines, of_base, of_any = [], [], []
    for name, other in itertools.permutations(by_name, 2):
        pairs = pairs_of(by_name[name], by_name[other])
        if len(pairs.own) < 2:
            continue
        found = pairing(*pairs.values()), over_problems(pairs)
        if other == baseline:
            of_base.append(found)
            lines.append(line(name, len(pairs.own), found, scale))
        if name < other:
            of_any.append(found)
    for name, every in ((f"all with {baseline}", of_base), ("any two", of_any)):
        if not every:
            continue
        columns = [[one for one in of if one] for of in zip(*every, strict=True)]
        means = [Pairing(*(x / len(of) for x in pooled(of))) if of else None for of in columns]
        lines.append(line(name, len(every), means, scale))
    return table(HEADER, lines)


def main() -> None:
    """Prints the table of a sweep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sweep", type=pathlib.Path)
    parser.add_argument("--baseline")
    parser.add_argument("--metric", default="accuracy/strict")
    parser.add_argument("--policy")
    arguments = parser.parse_args()
    rows = rows_of(arguments.sweep)
    cells = read_cells(rows, arguments.sweep, Asked(arguments.metric, arguments.policy, None))
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.value is None:
            print(f"not there: {cell.ablation}, seed {cell.seed}: {cell.reason}")
        else:
            by_name.setdefault(cell.ablation, []).append(cell)
    baseline = arguments.baseline or baseline_of(arguments.sweep, rows)
    print(report(by_name, baseline, cells[0].metric))


if __name__ == "__main__":
    main()
