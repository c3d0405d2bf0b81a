"""The head of a page: what a run is, how it stands, what it has learnt, how long it took.

What was learnt is read from the first evaluation at the end that has several policies, as its first
one against its last, or else from the running evaluations, the first against the newest. Each has
its interval of 95 % (docs/metrics.md).
"""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.reporting.evaluations import interval, looks_of
from grpo.reporting.html.markup import escaped, paragraph
from grpo.reporting.html.run_files import RunFiles
from grpo.reporting.summary import seconds_of
from grpo.reporting.text import duration

RIGHT = "accuracy/strict"
SIGNS = {"finished": "✓", "failed": "✕", "running": "●", "stopped": "‖"}


class Measured(NamedTuple):
    """An accuracy: whose, and with what interval."""

    label: str
    found: Mapping[str, Any]


def overview(run: RunFiles, written: datetime.datetime) -> str:
    """The head of the page of a run."""
    tiles = [learnt(run), time_tile(run), size_tile(run), machine_tile(run)]
    return "\n".join([
        '<header id="overview">',
        f'<p class="state {run.state}"><span aria-hidden="true">{SIGNS[run.state]}</span> '
        f"{run.state}</p>",
        f"<h1>{escaped(run.name)}</h1>",
        f'<p class="pipeline">{pipeline(run.config)}</p>',
        f'<p class="reason">{escaped(run.reason)}</p>' if run.reason else "",
        *(paragraph(f"Left out: {line}") for line in run.unread),
        f'<div class="tiles">{"".join(tiles)}</div>',
        f'<p class="remark">Written <time>{written:%Y-%m-%d %H:%M} UTC</time>'
        f'{" while the run went on" if run.state == "running" else ""}.</p>',
        "</header>",
    ])  # fmt: skip


def pipeline(config: Mapping[str, Any]) -> str:
    """The stages, one after the other."""
    stages = config.get("stages", {})
    names = []
    for name in config.get("pipeline", ()):
        kind = stages.get(name, {}).get("kind", name)
        more = f" <small>{escaped(kind)}</small>" if kind != name else ""
        names.append(f"<span>{escaped(name)}{more}</span>")
    return ' <span aria-hidden="true">→</span> '.join(names)


def tile(title: str, large: str, *lines: str) -> str:
    """A number with what it says, of markup."""
    said = "".join(f"<p>{line}</p>" for line in lines if line)
    return f'<div class="tile"><h2>{escaped(title)}</h2><p class="large">{large}</p>{said}</div>'


def measured(run: RunFiles) -> list[Measured]:
    """The first and the last accuracy; empty if there is none yet."""
    for results in run.evaluations.values():
        known = [
            Measured(policy, looks)
            for policy, found in results.items()
            if isinstance(found, dict) and RIGHT in (looks := looks_of(found))
        ]
        if len(known) > 1:
            return [known[0], known[-1]]
    rows = [row for row in run.metrics if f"eval/{RIGHT}" in row]
    return [
        Measured(
            f"{row['stage']}, update {row['step']}",
            {name.removeprefix("eval/"): value for name, value in row.items()},
        )
        for row in (rows[:1] + rows[-1:])
    ]


def learnt(run: RunFiles) -> str:
    """The tile of accuracies."""
    if not (both := measured(run)):
        return tile("right answers", "–", "not measured yet")
    shares = [100 * (one.found[RIGHT] or 0.0) for one in both]
    arrow = ' <span aria-label="to">→</span> '
    lines = [
        f"{escaped(one.label)}: {share:.1f} % "
        f"<small>({escaped(interval(one.found, RIGHT) or 'no interval')})</small>"
        for one, share in zip(both, shares, strict=True)
    ]
    large = arrow.join(f"{share:.1f}" for share in shares) + " <small>%</small>"
    gain = f"{shares[-1] - shares[0]:+.1f} points; intervals of 95 %"
    return tile("right answers, strict form", large, *lines, gain)


def time_tile(run: RunFiles) -> str:
    """The tile of times."""
    seconds = seconds_of(run.timing)
    lines = [f"{escaped(name)} {duration(x)}" for name, x in seconds.items()]
    return tile("training time", duration(sum(seconds.values())), *lines[:6])


def size_tile(run: RunFiles) -> str:
    """The tile of what is trained, and how often."""
    model = run.config.get("model", {})
    updates = {row["stage"]: row["step"] for row in run.timing}
    lines = [f"{escaped(name)} {count:,}" for name, count in updates.items()]
    total = f"{sum(updates.values()):,} <small>updates</small>"
    return tile("model", total, escaped(model.get("path") or model.get("size", "")), *lines[:5])


def machine_tile(run: RunFiles) -> str:
    """The tile of what it ran on."""
    if not run.environment:
        return ""
    here = run.environment[-1]
    commit = str(here.get("commit") or "")[:10] + " and changes" * bool(here.get("changed"))
    lines = [f"jax {here.get('jax')}, Python {here.get('python')}", here.get("processor"), commit]
    if len(run.environment) > 1:
        lines.append(f"{len(run.environment)} launches")
    shown = [escaped(line) for line in lines if line]
    return tile("machine", escaped(here.get("devices", "–")), *shown)
