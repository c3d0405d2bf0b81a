"""HTML from texts that may hold anything: as escaped texts, and as JSON that no parser leaves.

What a model, a data file or an exception has said enters a page through `escaped` or `island`
alone. In between it is made legible: a character that is not seen, or that turns the direction of
what follows, is shown as a sign in its place.

    C0 and DEL                  the sign of Unicode's control pictures: ␀ to ␟, ␡
    other controls, marks of direction, zero widths, halves of surrogate pairs      �
    line breaks, tabs           as they are

The tables, sections and folded parts of a page are made here too.
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def legible(text: str) -> str:
    """A text without characters that are not seen."""
    return UNSEEN.sub(sign_of, text)


def sign_of(found: re.Match) -> str:
    """What stands for a character that is not seen."""
    code = ord(found[0])
    if code == 0x7F:
        return "\u2421"
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def escaped(text: Any) -> str:
    """A text, or what one is made of, as HTML shows it; in attributes too."""
    return html.escape(legible(str(text)), quote=True)


def code(name: str) -> str:
    """A name as it is written in a file."""
    return f"<code>{escaped(name)}</code>"


def island(kind: str, value: Any) -> str:
    """A value as JSON for the page's script; texts in it are legible already."""
    return f'<script type="application/json" data-of="{kind}">{as_json(value)}</script>'


def as_json(value: Any) -> str:
    """A value as JSON in ASCII, without the sign that ends or opens something in a script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def section(name: str, title: str, *content: str) -> str:
    """A part of the page with its heading; nothing where it is empty."""
    inside = "\n".join(part for part in content if part)
    if not inside:
        return ""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>\n{inside}\n</section>'


def folded(title: str, *content: str, is_open: bool = False) -> str:
    """A part that can be opened."""
    inside = "\n".join(part for part in content if part)
    mark = " open" if is_open else ""
    return f"<details{mark}><summary>{escaped(title)}</summary>\n{inside}\n</details>"


def paragraph(text: str) -> str:
    """A remark."""
    return f'<p class="remark">{escaped(text)}</p>' if text else ""


def table(header: Sequence[str], lines: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """Rows of markup under texts; the first cell names its row, the others are aligned as numbers.

    A wide table scrolls by itself, never the page.
    """
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in header)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in lines
    )
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    label = escaped(caption or "table")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )
