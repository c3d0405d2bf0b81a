"""An example: one dataset item, a plain dict with string keys that JSON can hold.

    id           str          its own within a file
    question     str
    answer       str          what a completion is compared with; never empty
    reasoning    str | None   a worked solution, where the dataset has one
    checkpoints  list[str]    equations or facts that a good solution passes through
    level        int          difficulty, 1 is the easiest
    domain       str          (where a dataset has it) what it is about: some rewards are for a few
    context      str          (where a dataset has it) a text that an answer may cite

A dataset may add keys of its own.
"""

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
            listed = row.get(column)
            if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
                raise DataError(f"field {column!r} is not a list of texts")
            example[key] = listed
        elif key == "level":
            # A bool is an int to Python.
            if type(row.get(column)) is not int:
                raise DataError(f"field {column!r} is not an integer")
            example[key] = row[column]
    return example


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
