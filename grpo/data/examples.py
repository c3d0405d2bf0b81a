"""An example: one dataset item, a plain dict with string keys that JSON can hold.

    id           str          its own within a file
    question     str
    answer       str          what a completion is compared with; never empty
    reasoning    str | None   a worked solution, where the dataset has one
    checkpoints  list[str]    equations or facts that a good solution passes through
    level        int          difficulty, 1 is the easiest

A dataset may add keys of its own, and these have one meaning wherever they occur:

    domain       str          what routes it: rewards, shares of a mixture
    context      str          a given text, which its question begins with, and an answer may cite
    pass_rate    float        share of a model's completions of it that were right, as measured
"""

import json
from typing import Any

Example = dict[str, Any]
REQUIRED = {"question", "answer"}


class DataError(ValueError):
    """Data that cannot be used; one line that names the file, the row and the reason."""


def text_in(row: dict[str, Any], column: str) -> str:
    """The text in a column of a row; an error says why there is none."""
    if column not in row:
        raise DataError(f"no field {column!r} (it has {', '.join(map(repr, row)) or 'none'})")
    value = row[column]
    if value is None:
        raise DataError(f"field {column!r} is null")
    if not isinstance(value, str):
        raise DataError(f"field {column!r} is of type {type(value).__name__}, not a text")
    if not value.strip():
        raise DataError(f"field {column!r} is empty")
    return value


def json_in(row: dict[str, Any], column: str) -> Any:
    """A value of a row that is no text: itself, or as JSON in a text, as a CSV file has it."""
    value = row.get(column)
    if value is None:
        return text_in(row, column)  # which says what is missing
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # thousands of digits, deep nesting
        raise DataError(f"field {column!r} is a text, and not JSON") from None


def texts_of_list(value: Any, name: str) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name} is not a list of texts")
    return value


def with_context(example: Example) -> Example:
    """The example with its context before its question, where it has one."""
    if "context" not in example:
        return example
    return {**example, "question": f"{example['context']}\n\n{example['question']}"}


def from_row(row: dict[str, Any], columns: dict[str, str]) -> Example:
    """The example in a row; `columns` says which column is its question, its answer and so on."""
    example: Example = {"reasoning": None, "checkpoints": [], "level": 1}
    for key, column in columns.items():
        if key in ("id", "question", "answer", "domain", "context"):
            example[key] = text_in(row, column)
        elif key == "reasoning":
            is_null = column in row and row[column] is None
            example[key] = None if is_null else text_in(row, column)
        elif key == "checkpoints":
            example[key] = texts_of_list(json_in(row, column), f"field {column!r}")
        elif key == "level":
            level = json_in(row, column)
            if type(level) is not int:  # a bool is an int to Python
                raise DataError(f"field {column!r} is not an integer")
            example[key] = level
        elif key == "pass_rate":
            rate = json_in(row, column)
            if type(rate) not in (int, float) or not 0 <= rate <= 1:
                raise DataError(f"field {column!r} is {rate!r:.40}, not a share from 0 to 1")
            example[key] = float(rate)
    return with_context(example)


def check_columns(columns: dict[str, str], required: set[str], optional: set[str]) -> None:
    """Refuses a mapping that names what an example has not, or leaves out what it needs."""
    if missing := required - set(columns):
        raise DataError(f"columns: which one is the {' and the '.join(sorted(missing))}?")
    if unknown := set(columns) - required - optional:
        known = ", ".join(sorted(required | optional))
        raise DataError(f"columns: {sorted(unknown)[0]!r} is none of {known}")


def question_key(example: Example) -> str:
    """What two examples with the same question have in common: not case, nor white space."""
    return " ".join(example["question"].split()).casefold()
