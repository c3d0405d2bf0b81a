"""The parts of a drawing in SVG: a card with a title, texts, lines.

Numbers have one decimal, so that equal drawings have equal bytes. The card is white, with a fine
edge, and so reads the same on a dark page. Texts may hold anything.
"""

import html
from collections.abc import Sequence

from grpo.reporting.text import cut, printable

WIDTH, HEIGHT, EDGE = 720, 420, 28
INK, SOFT, RULE, GRID = "#1f2328", "#59636e", "#8c959f", "#e6e9ec"
FONT = "system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
CELL = 7.2  # pixels of a character of size 12, at most: the fonts of readers differ
TITLE_CELLS, LABEL_CELLS = 64, 90  # as many as have room
BOLD, MIDDLE, END = ' font-weight="600"', ' text-anchor="middle"', ' text-anchor="end"'


def escaped(content: str) -> str:
    """A text as XML can hold it, in which some characters may not even be escaped."""
    return html.escape(printable(content))


def text(x: float, y: float, content: str, *, fill: str = SOFT, more: str = "") -> str:
    """A text at a place; `more` holds further attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{more}>{escaped(content)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, *, stroke: str, more: str = "") -> str:
    """A straight line."""
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {ends} stroke="{stroke}"{more}/>'


def pen(points: Sequence[tuple[float, float]]) -> str:
    """How a pen goes through points; a point alone is a dot, where ends are round."""
    places = [f"{x:.1f} {y:.1f}" for x, y in points]
    return "M" + "L".join(places) + ("h0" if len(places) == 1 else "")


def card(title: str, subtitle: str, content: Sequence[str], height: int = HEIGHT) -> str:
    """The whole drawing: content under a title."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" font-family="{FONT}" font-size="12">',
        f"<title>{escaped(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff"'
        ' stroke="#d1d9e0"/>',
        text(EDGE, 38, cut(title, TITLE_CELLS), fill=INK, more=f' font-size="17"{BOLD}'),
        text(EDGE, 62, cut(subtitle, LABEL_CELLS)),
        *content,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
