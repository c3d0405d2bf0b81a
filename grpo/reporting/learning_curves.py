"""The picture at the end of a run: all its training on one axis of time.

Accuracy in running evaluations stands above; below it, where they were measured, the mean reward,
the tokens of a completion, and the KL to the reference. The time is that of timing.jsonl, with
compiling and evaluations. A stage begins where the one ends that it goes on from, so two stages
that go on from the same one are drawn over the same time. Training without running evaluations has
no line: its span is shaded.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grpo.reporting.curve import Panel, Series, Span, panels_svg

Rows = Sequence[Mapping[str, Any]]
ACCURACY = "eval/accuracy/strict"
BELOW = {
    "reward/mean": "mean reward of the completions sampled for training",
    "length/mean": "tokens of a completion",
    "kl": "KL to the reference, nats per token",
}
MINUTES = 600.0  # seconds from which the axis has minutes


class Part(NamedTuple):
    """A stage on the axis."""

    name: str
    rows: Rows
    begin: float  # seconds
    end: float
    at: Mapping[int, float]  # update -> seconds since the beginning of all


def learning_curves(config: Mapping[str, Any], rows: Rows, timing: Rows) -> str:
    """The picture as SVG; empty where no accuracy was measured."""
    parts = parts_of(config, rows, timing)
    longest = max((part.end for part in parts), default=0.0)
    unit, scale = ("minutes", 60.0) if longest > MINUTES else ("seconds", 1.0)
    accuracy = [series_of(part, ACCURACY, scale) for part in parts]
    if not any(one.x for one in accuracy):
        return ""
    unmeasured = [part for part, one in zip(parts, accuracy, strict=True) if not one.x]
    panels = [Panel([one for one in accuracy if one.x], "greedy, strict form", percent=True)]
    for metric, what in BELOW.items():
        own = [series_of(part, metric, scale) for part in parts]
        panels.append(Panel([one for one in own if one.x], what))
    return panels_svg(
        panels,
        title=f"Right answers to {config['evaluation']['split']} problems while training",
        x_label=f"{unit} of training",
        spans=[Span(part.name, part.begin / scale, part.end / scale) for part in unmeasured],
    )


def parts_of(config: Mapping[str, Any], rows: Rows, timing: Rows) -> list[Part]:
    """The training stages that have begun, each where it begins."""
    parts, ends = [], {"base": 0.0}
    for name in config["pipeline"]:
        if "start" not in config["stages"][name]:  # it trains nothing
            continue
        begin = ends[config["stages"][name]["start"] or [*ends][-1]]
        seconds = {row["step"]: row["seconds"] for row in timing if row["stage"] == name}
        at = {0: begin, **{step: begin + x for step, x in seconds.items()}}
        ends[name] = max(at.values())
        own = [row for row in rows if row["stage"] == name and row.get("step") in at]
        if own:
            parts.append(Part(name, own, begin, ends[name], at))
    return parts


def series_of(part: Part, metric: str, scale: float) -> Series:
    """A metric of a stage over time, with its interval where it has one."""
    own = [row for row in part.rows if metric in row]
    x = [part.at[row["step"]] / scale for row in own]
    low, high = ([row.get(f"{metric}/{end}") for row in own] for end in ("low", "high"))
    return Series(part.name, x, [row[metric] for row in own], low, high)
