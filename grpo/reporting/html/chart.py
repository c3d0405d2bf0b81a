"""A small chart: lines over steps with bands, values under the pointer, and what the metric is.

It is drawn here, so it is there without a script, and on paper. The script adds the value at the
nearest step, by pointer or by the arrow keys; the points it reads stand in the figure itself.

Long series are thinned to points of their own: of each of SPANS equal parts of the axis the first,
the lowest, the highest and the last one (M4: Jugel et al., VLDB 2014), which draws the same pixels.
Colours are the style's: line i of a chart has the class `c<i>`.
"""

import math
from collections.abc import Sequence
from typing import Any

from grpo.reporting.axis import axis
from grpo.reporting.curve import Numbers, Series, bounds, pieces
from grpo.reporting.html.markup import escaped, island
from grpo.reporting.html.metric_table import About, markdown
from grpo.reporting.svg import pen
from grpo.reporting.text import number, width

WIDTH, HEIGHT = 320, 140
TOP, BOTTOM, RIGHT = 8, 118, 310
CELL = 5.9  # pixels of a character of an axis
SPANS = 100
COLOURS = 7  # the style has so many
COLUMNS = ("x", "y", "low", "high")


def chart(
    title: str, series: Sequence[Series], about: About | None = None, *, x_label: str = "step"
) -> str:
    """The figure of some lines; nothing where none of them has a point."""
    drawn = [thinned(one) for one in series if pieces(one.x, one.y)]
    if not drawn:
        return ""
    points = [point for one in drawn for part in pieces(one.x, one.y) for point in part]
    heights = [y for one in drawn for part in bounds(one) for point in part for y in point[1:]]
    x_axis = axis([x for x, _ in points], 4, is_open=True)
    percent = is_share(about)
    y_axis = axis([y for _, y in points] + heights, 4, is_open=False, percent=percent)
    left = 6 + CELL * max(map(width, y_axis.labels))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (RIGHT - left) * x_axis.share(x), BOTTOM - (BOTTOM - TOP) * y_axis.share(y)

    parts = [f'<path class="grid" d="M{left:.1f} {at(0, tick)[1]:.1f}H{RIGHT}"/>'
             f'<text class="y" x="{left - 4:.1f}" y="{at(0, tick)[1] + 3.5:.1f}">{label}</text>'
             for tick, label in zip(y_axis.ticks, y_axis.labels, strict=True)]  # fmt: skip
    parts += [f'<text class="x" x="{at(tick, 0)[0]:.1f}" y="{BOTTOM + 15}">{label}</text>'
              for tick, label in zip(x_axis.ticks, x_axis.labels, strict=True)]  # fmt: skip
    for i, one in enumerate(drawn):
        colour = f"c{i % COLOURS}"
        band = "".join(
            pen([at(x, y) for x, y, _ in part] + [at(x, y) for x, _, y in part[::-1]]) + "Z"
            for part in bounds(one)
        )
        line = "".join(pen([at(*point) for point in part]) for part in pieces(one.x, one.y))
        parts += [f'<path class="band {colour}" d="{band}"/>'] if band else []
        parts.append(f'<path class="line {colour}{" faint" * one.faint}" d="{line}"/>')

    frame = [round(left, 1), RIGHT, TOP, BOTTOM, x_axis.low, x_axis.high, y_axis.low, y_axis.high]
    data = {"frame": frame, "percent": percent, "x": x_label,
            "series": [{"name": one.name, **columns(one)} for one in drawn]}  # fmt: skip
    last = shown(pieces(drawn[0].x, drawn[0].y)[-1][-1][1], percent) if len(drawn) == 1 else ""
    return (
        f'<figure class="chart"><figcaption><b>{escaped(title)}</b>'
        f'<output aria-live="polite" data-last="{last}">{last}</output></figcaption>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escaped(in_words(title, drawn, x_label, percent))}">{"".join(parts)}</svg>\n'
        f"{legend(drawn)}{explained(about)}{island('chart', data)}</figure>"
    )


def is_share(about: About | None) -> bool:
    """Whether a metric is written in percent."""
    return about is not None and about.unit == "share"


def shown(value: float, percent: bool) -> str:
    """A value for a reader."""
    return f"{100 * value:.1f} %" if percent else number(value)


def columns(one: Series) -> dict[str, list[float | None]]:
    """The numbers of a series as the script reads them, with five digits."""

    def digits(value: float | None) -> float | None:
        known = value is not None and math.isfinite(value)
        return float(f"{value:.5g}") if known else None

    found = {name: getattr(one, name) for name in COLUMNS}
    return {
        name: [value if name == "x" else digits(value) for value in values]
        for name, values in found.items()
        if values is not None
    }


def thinned(one: Series) -> Series:
    """A series without the points that would not be seen, if it is a long one."""
    if len(one.x) <= 4 * SPANS:
        return one
    xs = [float(x) for x in one.x if x is not None]
    low, step = min(xs), (max(xs) - min(xs)) / SPANS or 1.0
    spans: dict[int, list[int]] = {}
    kept: set[int] = set()
    is_gap = False
    for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
        if x is not None and y is not None and math.isfinite(y):
            spans.setdefault(int((x - low) / step), []).append(i)
            is_gap = False
        elif not is_gap:
            kept.add(i)  # one point of a gap, so that nothing is drawn across it
            is_gap = True
    for found in spans.values():
        ys = {i: float(one.y[i] or 0.0) for i in found}
        lowest, highest = min(found, key=ys.__getitem__), max(found, key=ys.__getitem__)
        kept |= {found[0], lowest, highest, found[-1]}

    def of(values: Numbers | None) -> Any:
        return None if values is None else [values[i] for i in sorted(kept)]

    return one._replace(x=of(one.x), y=of(one.y), low=of(one.low), high=of(one.high))


def in_words(title: str, drawn: Sequence[Series], x_label: str, percent: bool) -> str:
    """What a chart shows, for those who do not see it."""
    said = []
    for one in drawn:
        found = [point for part in pieces(one.x, one.y) for point in part]
        ys = [y for _, y in found]
        first, last, low, high = (shown(y, percent) for y in (ys[0], ys[-1], min(ys), max(ys)))
        said.append(
            f"{one.name}: first {first}, last {last}, lowest {low}, highest {high}, "
            f"{x_label} {number(found[0][0])} to {number(found[-1][0])}"
        )
    return f"Chart of {title}. {'; '.join(said)}."


def legend(drawn: Sequence[Series]) -> str:
    """The names of several lines."""
    if len(drawn) < 2:
        return ""
    names = "".join(
        f'<li class="c{i % COLOURS}">{escaped(one.name)}</li>' for i, one in enumerate(drawn)
    )
    return f'<ul class="legend">{names}</ul>'


def explained(about: About | None) -> str:
    """The formula, unit and healthy range of a metric."""
    if about is None:
        return ""
    unit = "" if about.unit in ("", "–") else f" · {markdown(about.unit)}"
    healthy = f"<dt>healthy</dt><dd>{markdown(about.healthy)}</dd>" if about.healthy else ""
    return (
        f'<details class="about"><summary>what it is{unit}</summary>'
        f"<dl><dt>formula</dt><dd>{markdown(about.formula)}</dd>{healthy}</dl></details>"
    )
