"""Which wrong answers a table of rewards puts above which right ones: cases of hacks.py in order.

By the mean totals over the examples, each case as the report has it. Format outweighs correctness
where a wrong answer in full form earns more than the right answer without the form.
"""

import math
from typing import NamedTuple

from grpo.evaluation.hacks import EQUAL, PLAIN, Report

IN_FORM, WITHOUT_FORM = "another answer", "a sentence"  # cases of hack_cases.py


class Above(NamedTuple):
    """A wrong answer that earns more than a right one."""

    wrong: str
    wrong_total: float
    right: str
    right_total: float


def wrong_above_right(report: Report) -> list[Above]:
    """For each right case that is outbid on the mean the best paid wrong one, the worst first."""
    wrong = {row.case: row.total for row in report.rows if row.kind == "wrong"}
    wrong = {case: total for case, total in wrong.items() if not math.isnan(total)}
    right = {PLAIN: report.plain} | {r.case: r.total for r in report.rows if r.kind == "right"}
    if not wrong:
        return []
    best = max(wrong, key=lambda case: wrong[case])
    found = [
        Above(best, wrong[best], case, total)
        for case, total in right.items()
        if total < wrong[best] - EQUAL
    ]
    return sorted(found, key=lambda one: one.right_total)


def format_first(report: Report) -> tuple[float, float] | None:
    """What a wrong answer in form earns and what the right one without it; None: no such cases."""
    totals = {row.case: row.total for row in report.rows}
    pair = totals.get(IN_FORM, math.nan), totals.get(WITHOUT_FORM, math.nan)
    return None if any(map(math.isnan, pair)) else pair
