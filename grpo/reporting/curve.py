"""Curves as a self-contained SVG, without a plotting library; equal series give equal bytes.

names     stand at the ends of their lines, pushed apart where these meet; there is no legend
colours   of Okabe and Ito, told apart by colour-blind eyes; one for each name, so that faint
          lines (single runs, without a name beside them) look like the line of their mean
gaps      where a number is missing or not finite: nothing is drawn across it
"""

import math
from collections.abc import Sequence
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


class Frame(NamedTuple):
    """Where the lines are drawn."""

    left: float
    right: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        across, up = self.x.share(x), self.y.share(y)
        return self.left + (self.right - self.left) * across, BOTTOM - (BOTTOM - TOP) * up


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


def grid(frame: Frame, x_label: str) -> list[str]:
    """Light lines at the ticks, what stands beside them, and the axis below."""
    left, right = frame.left, frame.right
    out = []
    for tick, label in zip(frame.y.ticks, frame.y.labels, strict=True):
        y = frame.at(frame.x.low, tick)[1]
        out += [line(left, y, right, y, stroke=GRID), text(left - 8, y + 4, label, more=END)]
    for tick, label in zip(frame.x.ticks, frame.x.labels, strict=True):
        x = frame.at(tick, frame.y.low)[0]
        out += [line(x, TOP, x, BOTTOM, stroke=GRID), text(x, BOTTOM + 19, label, more=MIDDLE)]
    below = text((left + right) / 2, HEIGHT - 14, cut(x_label, LABEL_CELLS), more=MIDDLE)
    return [*out, line(left, BOTTOM, right, BOTTOM, stroke=RULE), below]


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
    """The chart of some series; `percent` writes shares as 40%."""
    series = [one for one in series if pieces(one.x, one.y)]
    if not series:
        raise ValueError(f"{title}: no series has a point to draw")
    found = [piece for one in series for piece in pieces(one.x, one.y) + bounds(one)]
    points = [point for piece in found for point in piece]
    x_axis = axis([point[0] for point in points], 8, is_open=True)
    y_axis = axis([y for point in points for y in point[1:]], 6, is_open=False, percent=percent)

    names = list(dict.fromkeys(one.name for one in series))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    named = [one for one in series if not one.faint]
    shown = [cut(printable(one.name), NAME_CELLS) for one in named]
    left = EDGE + 8 + CELL * max(map(width, y_axis.labels))
    right = WIDTH - EDGE - (CELL * max(map(width, shown)) + 24 if shown else 0)
    frame = Frame(left, right, x_axis, y_axis)

    out = grid(frame, x_label) + [
        band(one, frame, colour[one.name]) for one in series if bounds(one)
    ]
    for one in sorted(series, key=lambda one: not one.faint):  # faint ones below the others
        out += curve(one, frame, colour[one.name])
    ends = [frame.at(*pieces(one.x, one.y)[-1][-1]) for one in named]
    places = apart([y for _, y in ends], NAME_GAP, TOP, BOTTOM)
    for one, name, (x, y), place in zip(named, shown, ends, places, strict=True):
        ink = colour[one.name]
        out.append(line(x + 5, y, right + 20, place, stroke=ink, more=' stroke-opacity="0.5"'))
        out.append(text(right + 24, place + 4, name, fill=ink, more=BOLD))
    return card(title, y_label, out)
