"""A preference: two completions of one prompt, of which one is better; a dict as an example is.

id        str           its own within a file
question  str           what both complete, put into words by a template
chosen    str           the better completion
rejected  str           the other one
margin    float | None  by how much it is worse, where the dataset says so; 0 or more
cut_off   bool          whether the rejected one was cut off, and so has no end
kind      str           what is wrong with the rejected one, where the dataset says so
"""

import functools
import math
import pathlib
from typing import Any

from grpo.data.examples import DataError, Example, check_columns, question_key, text_in
from grpo.data.sources import load

REQUIRED = {"question", "chosen", "rejected"}
OPTIONAL = {"id", "margin", "cut_off", "kind"}
TEXTS = {*REQUIRED, "id", "kind"}


def from_row(row: dict[str, Any], columns: dict[str, str]) -> Example:
    """The preference in a row; `columns` says which column is its question and so on."""
    texts = {key: text_in(row, column) for key, column in columns.items() if key in TEXTS}
    if texts["chosen"] == texts["rejected"]:
        raise DataError("the chosen completion is the rejected one")
    margin = row.get(columns["margin"]) if "margin" in columns else None
    cut_off = row.get(columns["cut_off"], False) if "cut_off" in columns else False
    if not isinstance(cut_off, bool):
        raise DataError(f"field {columns['cut_off']!r} is {cut_off!r:.40}, neither true nor false")
    margin = None if margin is None else margin_of(margin, columns["margin"])
    return texts | {"margin": margin, "cut_off": cut_off}


def margin_of(value: Any, column: str) -> float:
    """A margin, which is a number from 0 on."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise DataError(f"field {column!r} is {value!r:.40}, not a number from 0 on")
    return float(value)


def pair_key(preference: Example) -> tuple[str, ...]:
    """What two rows with the same preference have in common; a question may have several."""
    return question_key(preference), preference["chosen"], preference["rejected"]


def load_preferences(
    path: str | pathlib.Path, columns: dict[str, str], max_bad: float
) -> tuple[list[Example], dict[str, Any]]:
    """The preferences of a file, and a report as `sources.load` writes it."""
    check_columns(columns, REQUIRED, OPTIONAL)
    return load(path, functools.partial(from_row, columns=columns), max_bad, key=pair_key)
