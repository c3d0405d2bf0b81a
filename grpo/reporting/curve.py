"""Curves as a self-contained SVG, without a plotting library; equal series give equal bytes.

names     stand at the ends of their lines, pushed apart where these meet; there is no legend
colours   of Okabe and Ito, told apart by colour-blind eyes; one for each name, so that faint
          lines (single runs, without a name beside them) look like the line of their mean
gaps      where a number is missing or not finite: nothing is drawn across it
panels    stand below one another over one axis; the first is the large one, and has the names
spans     parts of the axis that have a name and no line, such as training that is not measured
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grpo.reporting.axis import Axis, apart, axis
from grpo.reporting.svg import (
    BOLD,
    CELL,
    EDGE,
    END,
    GRID,
    HEIGHT,
    LABEL_CELLS,
    MIDDLE,
    RULE,
    WIDTH,
    card,
    line,
    pen,
    text,
)
from grpo.reporting.text import cut, printable, width

TOP, BOTTOM = 84, 366
GAP, LOW = 38, 84  # above a further panel, for what it shows; its height
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NAME_GAP = 17  # between the names of two lines
NAME_CELLS = 24
MOST_MARKERS = 40  # of more points only the line is drawn
Numbers = Sequence[float | None] | np.ndarray  # None is what a journal has for NaN


class Series(NamedTuple):
    """A line by its points, and a band around it where both bounds are given."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    faint: bool = False


class Panel(NamedTuple):
    """Lines over the common axis; `percent` writes shares as 40%."""

    series: Sequence[Series]
    y_label: str
    percent: bool = False


class Span(NamedTuple):
    """A part of the common axis."""

    name: str
    begin: float
    end: float


class Frame(NamedTuple):
    """Where the lines are drawn."""

    left: float
    right: float
    top: float
    bottom: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        across, up = self.x.share(x), self.y.share(y)
        x = self.left + (self.right - self.left) * across
        return x, self.bottom - (self.bottom - self.top) * up


def pieces(*columns: Numbers) -> list[list[tuple[float, ...]]]:
    """The points that columns hold, parted where one of their numbers is missing or not finite."""
    found: list[list[tuple[float, ...]]] = [[]]
    for row in zip(*columns, strict=True):
        point = tuple(float(value) for value in row if value is not None and math.isfinite(value))
        if len(point) == len(row):
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def bounds(one: Series) -> list[list[tuple[float, ...]]]:
    """The points of a band as x, low and high."""
    return [] if one.low is None or one.high is None else pieces(one.x, one.low, one.high)


def grid(frame: Frame) -> list[str]:
    """Light lines at the ticks, what stands beside those of y, and the axis below."""
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    out = []
    for tick, label in zip(frame.y.ticks, frame.y.labels, strict=True):
        y = frame.at(frame.x.low, tick)[1]
        out += [line(left, y, right, y, stroke=GRID), text(left - 8, y + 4, label, more=END)]
    for tick in frame.x.ticks:
        x = frame.at(tick, frame.y.low)[0]
        out.append(line(x, top, x, bottom, stroke=GRID))
    return [*out, line(left, bottom, right, bottom, stroke=RULE)]


def below(frame: Frame, x_label: str) -> list[str]:
    """What stands below the last panel."""
    out = [
        text(frame.at(tick, frame.y.low)[0], frame.bottom + 19, label, more=MIDDLE)
        for tick, label in zip(frame.x.ticks, frame.x.labels, strict=True)
    ]
    middle = (frame.left + frame.right) / 2
    return [*out, text(middle, frame.bottom + 40, cut(x_label, LABEL_CELLS), more=MIDDLE)]


def shaded(span: Span, frame: Frame, named: bool) -> list[str]:
    """A span as a shade over a panel, with its name at the top."""
    x0, x1 = (frame.at(x, frame.y.low)[0] for x in (span.begin, span.end))
    out = [
        f'<rect class="span" x="{x0:.1f}" y="{frame.top:.1f}" width="{x1 - x0:.1f}" '
        f'height="{frame.bottom - frame.top:.1f}" fill="{GRID}" fill-opacity="0.6"/>'
    ]
    name = cut(printable(span.name), int((x1 - x0) / CELL))
    return out + [text((x0 + x1) / 2, frame.top + 16, name, more=MIDDLE)] * named


def band(one: Series, frame: Frame, colour: str) -> str:
    """What lies between the bounds of a series."""
    d = ""
    for piece in bounds(one):
        there, back = [(x, y) for x, y, _ in piece], [(x, y) for x, _, y in piece[::-1]]
        d += pen([frame.at(*point) for point in there + back]) + "Z"
    return f'<path class="band" d="{d}" fill="{colour}" fill-opacity="0.15"/>'


def curve(one: Series, frame: Frame, colour: str) -> list[str]:
    """The line of a series, and its markers."""
    places = [[frame.at(*point) for point in piece] for piece in pieces(one.x, one.y)]
    look = 'class="line" stroke-width="2.4"'
    if one.faint:
        look = 'class="faint" stroke-width="1.2" stroke-opacity="0.35"'
    out = [
        f'<path {look} d="{"".join(map(pen, places))}" fill="none" stroke="{colour}"'
        ' stroke-linejoin="round" stroke-linecap="round"/>'
    ]
    points = [point for piece in places for point in piece]
    if one.faint or len(points) > MOST_MARKERS:
        return out
    fill = f'fill="{colour}" stroke="#ffffff"'
    return out + [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" {fill}/>' for x, y in points]


def curve_svg(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, percent: bool = False
) -> str:
    """The chart of some series."""
    return panels_svg([Panel(series, y_label, percent)], title=title, x_label=x_label)


def panels_svg(
    panels: Sequence[Panel], *, title: str, x_label: str, spans: Sequence[Span] = ()
) -> str:
    """Panels below one another; those without a point are left out, if the first has some."""
    shown = [panel._replace(series=drawable(panel)) for panel in panels]
    if not shown[0].series:
        raise ValueError(f"{title}: no series has a point to draw")
    shown = [panel for panel in shown if panel.series]
    xs = [x for panel in shown for x, *_ in points_of(panel)]
    x_axis = axis([*xs, *(x for _, *ends in spans for x in ends)], 8, is_open=True)
    y_axes = [y_axis_of(panel, 3 if i else 6) for i, panel in enumerate(shown)]

    names = list(dict.fromkeys(one.name for panel in shown for one in panel.series))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    ends = [cut(printable(one.name), NAME_CELLS) for one in shown[0].series if not one.faint]
    left = EDGE + 8 + CELL * max(width(label) for axis in y_axes for label in axis.labels)
    right = WIDTH - EDGE - (CELL * max(map(width, ends)) + 24 if ends else 0)

    out, frames, bottom = [], [], BOTTOM
    for i, (panel, y_axis) in enumerate(zip(shown, y_axes, strict=True)):
        bottom = BOTTOM + i * (GAP + LOW)
        frame = Frame(left, right, bottom - LOW if i else TOP, bottom, x_axis, y_axis)
        out += [part for span in spans for part in shaded(span, frame, named=not i)]
        out += grid(frame)
        out += [text(EDGE, frame.top - 12, cut(panel.y_label, LABEL_CELLS))] if i else []
        out += lines(panel, frame, colour)
        frames.append(frame)
    out += below(frames[-1], x_label) + end_names(shown[0], frames[0], colour, ends)
    return card(title, shown[0].y_label, out, bottom + HEIGHT - BOTTOM)


def drawable(panel: Panel) -> list[Series]:
    """The series that have a point."""
    return [one for one in panel.series if pieces(one.x, one.y)]


def points_of(panel: Panel) -> list[tuple[float, ...]]:
    """Every point of lines and bands."""
    found = [piece for one in panel.series for piece in pieces(one.x, one.y) + bounds(one)]
    return [point for piece in found for point in piece]


def y_axis_of(panel: Panel, most: int) -> Axis:
    """The axis of a panel."""
    heights = [y for point in points_of(panel) for y in point[1:]]
    return axis(heights, most, is_open=False, percent=panel.percent)


def lines(panel: Panel, frame: Frame, colour: Mapping[str, str]) -> list[str]:
    """The bands and the lines, faint ones below the others."""
    out = [band(one, frame, colour[one.name]) for one in panel.series if bounds(one)]
    for one in sorted(panel.series, key=lambda one: not one.faint):
        out += curve(one, frame, colour[one.name])
    return out


def end_names(
    panel: Panel, frame: Frame, colour: Mapping[str, str], shown: Sequence[str]
) -> list[str]:
    """The names of lines beside their ends."""
    named = [one for one in panel.series if not one.faint]
    ends = [frame.at(*pieces(one.x, one.y)[-1][-1]) for one in named]
    places = apart([y for _, y in ends], NAME_GAP, frame.top, frame.bottom)
    out = []
    for one, name, (x, y), place in zip(named, shown, ends, places, strict=True):
        ink = colour[one.name]
        more = ' stroke-opacity="0.5"'
        out.append(line(x + 5, y, frame.right + 20, place, stroke=ink, more=more))
        out.append(text(frame.right + 24, place + 4, name, fill=ink, more=BOLD))
    return out
