"""The hint of an error about a name that is not known: the known one that looks most like it."""

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: Any, known: Iterable) -> str:
    """`; did you mean …?`, or nothing where no known name is close."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
