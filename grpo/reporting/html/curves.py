"""The metrics of a run: a chart for each, by stage, what matters most first.

Rows of metrics.jsonl with a policy are those of an evaluation at the end, which has its table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.curve import Series
from grpo.reporting.html.chart import chart
from grpo.reporting.html.markup import escaped, folded, section
from grpo.reporting.html.metric_table import about

PLACE = ("stage", "step", "iteration", "round", "policy")
FIRST = (
    "eval/accuracy/strict", "right", "reward/mean", "length/mean", "kl", "grad_norm", "entropy",
    "group/zero_variance", "loss", "preference/accuracy", "divergence", "traces/kept",
)  # fmt: skip
Rows = Sequence[Mapping[str, Any]]


def curves(rows: Rows, config: Mapping[str, Any]) -> str:
    """The section of all curves."""
    parts, stages = [], config.get("stages", {})
    for stage in dict.fromkeys(row.get("stage") for row in rows):
        own = [row for row in rows if row.get("stage") == stage and "policy" not in row]
        if drawn := of_stage(own):
            kind = stages.get(stage, {}).get("kind", "")
            unit = "updates" if "start" in stages.get(stage, {}) else "batches"
            updates = f"{own[-1].get('step', '?')} {unit}"
            more = f" <small>{escaped(f'{kind}, ' * (kind != stage) + updates)}</small>"
            parts.append(f'<h3>{escaped(stage)}{more}</h3>\n<div class="stage">{drawn}</div>')
    return section("curves", "Curves", *parts)


def of_stage(rows: Rows) -> str:
    """The charts of a stage, the rest of them folded."""
    found = series_of(rows)
    first = [name for name in FIRST if name in found]
    rest = sorted(found.keys() - set(first))
    drawn, others = (
        "\n".join(filter(None, (chart(name, [found[name]], about(name)) for name in names)))
        for names in (first, rest)
    )
    more = folded(f"{len(rest)} further metrics", f'<div class="charts">{others}</div>')
    return f'<div class="charts">{drawn}</div>' * bool(drawn) + more * bool(others)


def series_of(rows: Rows) -> dict[str, Series]:
    """Every metric over the updates, with its interval as a band where it has one."""
    names = dict.fromkeys(name for row in rows for name in row if name not in PLACE)
    ends = {name for name in names if name.endswith(("/low", "/high"))}
    ends = {name for name in ends if name.rpartition("/")[0] in names}
    found = {}
    for name in names:
        if name in ends:
            continue
        own = [row for row in rows if name in row and "step" in row]
        low, high = ([row.get(f"{name}/{end}") for row in own] for end in ("low", "high"))
        y = [row[name] if isinstance(row[name], int | float) else None for row in own]
        one = Series(name, [row["step"] for row in own], y)
        has_band = {f"{name}/low", f"{name}/high"} <= ends
        found[name] = one._replace(low=low, high=high) if has_band else one
    return {name: one for name, one in found.items() if any(y is not None for y in one.y)}
