"""Texts and numbers as a terminal can show them, each on one line, whatever is in them."""

import numbers
import re
import unicodedata
from typing import Any

# What a terminal obeys as a whole: CSI sequences, and strings that have their end.
ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_])[^\x07\x1b]*(?:\x07|\x1b\\)")
JOINERS = "\u200c\u200d"  # format characters that scripts and emoji need
NO_CHARACTERS = "\ufffe\uffff"


def printable(text: str) -> str:
    """A text on one line, without escape sequences, control characters or changes of direction."""
    out = []
    for char in ESCAPE.sub("", text):
        kind = unicodedata.category(char)
        if char.isspace():  # line breaks of every kind too
            out.append(" ")
        elif kind == "Cs" or char in NO_CHARACTERS:  # Cs: half a surrogate pair
            out.append("\ufffd")
        elif kind not in ("Cc", "Cf") or char in JOINERS:
            out.append(char)
    return "".join(out)


def width(text: str) -> int:
    """How many cells of a terminal a text takes, at most: accents are counted apart."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, cells: int) -> str:
    """As much of a text as fits; an ellipsis says that there was more."""
    if width(text) <= cells:
        return text
    taken, room = "", cells - 3
    for char in text:
        room -= width(char)
        if room < 0:
            break
        taken += char
    return (taken + "...")[: max(cells, 0)]


def number(value: Any) -> str:
    """Integers as they are, others with three digits."""
    if isinstance(value, numbers.Integral):
        return str(int(value))
    value = float(value)
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def pace(seconds: float) -> str:
    """Seconds per iteration."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms/it"
    return f"{seconds:.1f} s/it" if seconds < 10 else f"{seconds:.0f} s/it"


def duration(seconds: float) -> str:
    """Whole seconds as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
