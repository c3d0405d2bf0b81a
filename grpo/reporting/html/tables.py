"""The tables of what a run measured: evaluations with their intervals, and times."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.evaluations import looks_of
from grpo.reporting.html.chart import COLOURS, is_share, shown
from grpo.reporting.html.markup import code, escaped, folded, paragraph, section, table
from grpo.reporting.html.metric_table import about
from grpo.reporting.html.run_files import Row
from grpo.reporting.text import duration

Found = Mapping[str, Any]
MAIN = (
    "accuracy/strict", "accuracy/lenient", "format/strict", "length/mean", "mean@", "pass@", "maj@",
)  # fmt: skip
BAR = 120  # pixels of the bar of an interval


def evaluations(results: Mapping[str, Mapping[str, Found]]) -> str:
    """The section of all evaluations: by stage a table of policies, and one of everything."""
    parts = []
    for stage, by_policy in results.items():
        found = {name: looks_of(x) for name, x in by_policy.items() if isinstance(x, dict)}
        names = list(dict.fromkeys(name for one in found.values() for name in one))
        names = [name for name in names if not name.endswith(("/low", "/high"))]
        main = [name for name in names if name.startswith(MAIN) and "/strings" not in name]
        parts += [
            f"<h3>{escaped(stage)}</h3>",
            by_policies(found, main or names[:6]),
            folded("every metric", by_metrics(found, names)),
        ]
    remark = "Intervals of 95 %; right is the answer in the strict form. docs/metrics.md has them."
    return section("evaluations", "Evaluations", *parts, paragraph(remark) if parts else "")


def by_policies(found: Mapping[str, Found], names: Sequence[str]) -> str:
    """A line per policy, the first share as a bar."""
    lines = [
        [escaped(policy), *(value_of(one, name, bar=name == names[0]) for name in names)]
        for policy, one in found.items()
    ]
    return table(["policy", *names], lines, caption="by policy")


def by_metrics(found: Mapping[str, Found], names: Sequence[str]) -> str:
    """A line per metric."""
    lines = []
    for name in names:
        if not any(isinstance(one.get(name), Mapping) for one in found.values()):
            lines.append([code(name), *(value_of(one, name) for one in found.values())])
    domains = [
        [f"{escaped(domain)}: {code(name)}", *(value_of(part, name) for part in parts)]
        for domain in dict.fromkeys(d for one in found.values() for d in one.get("domains", {}))
        for parts in [[one.get("domains", {}).get(domain, {}) for one in found.values()]]
        for name in dict.fromkeys(n for part in parts for n in part)
        if not name.endswith(("/low", "/high"))
    ]
    return table(["metric", *found], lines + domains, caption="every metric")


def value_of(found: Found, name: str, *, bar: bool = False) -> str:
    """A metric of a policy with its interval, in percent where it is a share."""
    value, low, high = (found.get(f"{name}{end}") for end in ("", "/low", "/high"))
    if not isinstance(value, int | float):
        return ""
    percent = is_share(about(name))
    text = escaped(shown(value, percent))
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return text
    ends = f"{100 * low:.1f} to {100 * high:.1f}" if percent else f"{low:.3g} to {high:.3g}"
    return f"{text} <small>{ends}</small>{interval_bar(value, low, high) if bar else ''}"


def interval_bar(value: float, low: float, high: float) -> str:
    """A share from 0 to 1 as a point, and its interval as a line."""
    x0, x, x1 = (f"{2 + BAR * min(max(share, 0.0), 1.0):.1f}" for share in (low, value, high))
    return (
        f'<svg class="interval" viewBox="0 0 {BAR + 4} 10" aria-hidden="true">'
        f'<path class="grid" d="M2 5H{BAR + 2}"/><path class="line c0" d="M{x0} 5H{x1}"/>'
        f'<circle class="c0" cx="{x}" cy="5" r="3.5"/></svg>'
    )


def timing(rows: Sequence[Row]) -> str:
    """The section of times: what each stage took, and what of it was its updates.

    first     up to the end of the first update: loading, compiling, a first evaluation
    updates   the median between two updates, for each of the others
    other     what is left: evaluations and checkpoints between updates
    """
    by_stage: dict[str, list[float]] = {}
    for row in rows:
        by_stage.setdefault(row["stage"], []).append(row["seconds"])
    phases = {name: phases_of(seconds) for name, seconds in by_stage.items()}
    total = sum(map(sum, phases.values()))
    if not total:
        return ""
    lines = [
        [escaped(name), duration(sum(parts)), f"{100 * sum(parts) / total:.0f} %",
         *(f"{x:.1f} s" for x in parts), f"{len(by_stage[name]):,}",
         f"{1000 * parts[1] / max(len(by_stage[name]) - 1, 1):.0f} ms"]
        for name, parts in phases.items()
    ]  # fmt: skip
    header = ["stage", "time", "share", "first update", "updates", "other", "updates", "each"]
    return section(
        "timing", "Timing", time_bar({name: sum(parts) for name, parts in phases.items()}),
        table(header, lines, caption="by stage and phase"),
        paragraph("First update: up to its end, with loading, compiling and the evaluation before "
                  "it. Updates: the median between two, times their number. Other: what is left, "
                  "such as evaluations and checkpoints."),
    )  # fmt: skip


def phases_of(seconds: Sequence[float]) -> list[float]:
    """The parts of the time of a stage, of the seconds at the end of each update."""
    gaps = sorted(after - before for before, after in itertools.pairwise(seconds))
    updates = min(gaps[len(gaps) // 2] * len(gaps), sum(gaps)) if gaps else 0.0
    return [seconds[0], updates, max(seconds[-1] - seconds[0] - updates, 0.0)]


def time_bar(seconds: Mapping[str, float]) -> str:
    """The stages as parts of one bar."""
    total, x, parts, names = sum(seconds.values()), 0.0, [], []
    for i, (name, part) in enumerate(seconds.items()):
        wide = 600 * part / total
        parts.append(
            f'<rect class="c{i % COLOURS}" x="{x:.1f}" y="0" width="{wide:.1f}" height="18"/>'
        )
        names.append(f'<li class="c{i % COLOURS}">{escaped(name)} {duration(part)}</li>')
        x += wide
    said = ", ".join(f"{name} {duration(part)}" for name, part in seconds.items())
    return (
        f'<svg class="share" viewBox="0 0 600 18" preserveAspectRatio="none" role="img" '
        f'aria-label="Time by stage: {escaped(said)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{"".join(names)}</ul>'
    )
