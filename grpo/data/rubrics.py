"""Questions with a rubric, as Rubrics as Rewards (arXiv:2507.17746) publishes them.

    {"question": "...", "reference_answer": "...",
     "rubric": [{"title": "Dose", "description": "Names the dose.", "weight": 5}, ...]}

A weight may be below 0: a pitfall. The list may be JSON in a text, as a CSV file has it.
"""

import math
from typing import Any

from grpo.data.examples import DataError, Example, json_in, text_in

REQUIRED = {"question", "answer", "rubric"}
OPTIONAL = {"id", "domain"}


def item_of(item: Any, place: int) -> dict[str, Any]:
    """An item of a rubric."""
    if not isinstance(item, dict):
        raise DataError(f"item {place} of the rubric is not an object")
    try:
        title, description = text_in(item, "title"), text_in(item, "description")
    except DataError as error:
        raise DataError(f"item {place} of the rubric: {error}") from None
    weight: Any = item.get("weight")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not abs(weight) < math.inf:
        raise DataError(f"item {place} of the rubric has the weight {weight!r:.40}, no number")
    return {"title": title, "description": description, "weight": float(weight)}


def from_row(row: dict[str, Any], columns: dict[str, str]) -> Example:
    """The example in a row; `columns` says which column is its question and so on."""
    texts = {key: text_in(row, columns[key]) for key in columns if key != "rubric"}
    items = json_in(row, columns["rubric"])
    if not isinstance(items, list) or not items:
        raise DataError(f"field {columns['rubric']!r} is not a list of items")
    rubric = [item_of(item, place) for place, item in enumerate(items, start=1)]
    return texts | {"reasoning": None, "checkpoints": [], "level": 1, "rubric": rubric}
