r"""Questions with options, of which one is right: asked with a letter before each.

    {"question": "Which is a noble gas?", "options": ["O2", "Ne"], "label": 1}
    "Which is a noble gas?\nA. O2\nB. Ne"          answer "B", options ["O2", "Ne"]

Options are a list, an object of letters and texts, or either as JSON in a text. A label is a
letter, a place counted from 0, or the text of an option; one that may be read as two of these is a
bad row and is not guessed at. A context stands before the question.
"""

import string
from typing import Any

from grpo.data.examples import DataError, Example, json_in, text_in, texts_of_list, with_context

REQUIRED = {"question", "options", "label"}
OPTIONAL = {"id", "domain", "context", "reasoning"}


def options_in(row: dict[str, Any], column: str) -> dict[str, str]:
    """The options by letter."""
    value = json_in(row, column)
    if isinstance(value, dict):  # Parquet has every row's keys in each of them
        value = {str(letter): text for letter, text in value.items() if text is not None}
        texts = texts_of_list(list(value.values()), f"field {column!r}")
        options = dict(zip(value, texts, strict=True))
    else:
        texts = texts_of_list(value, f"field {column!r}")
        options = dict(zip(string.ascii_uppercase, texts, strict=False))
    if not 2 <= len(texts) <= len(string.ascii_uppercase) or len(set(texts)) < len(texts):
        raise DataError(f"field {column!r} is not 2 to 26 options that differ")
    return options


def letter_of(label: Any, options: dict[str, str]) -> str:
    """The letter of the right option."""
    is_label = isinstance(label, str | int) and not isinstance(label, bool)
    text = str(label).strip() if is_label else ""
    letters = list(options)
    meant = {letter for letter in letters if text in (letter, options[letter])}
    meant |= {letter for place, letter in enumerate(letters) if text == str(place)}
    if len(meant) != 1:
        how = "may mean more than one" if meant else "is none"
        raise DataError(f"the label {label!r:.40} {how} of the {len(options)} options")
    return meant.pop()


def from_row(row: dict[str, Any], columns: dict[str, str]) -> Example:
    """The example in a row; `columns` says which column is its question and so on."""
    options = options_in(row, columns["options"])
    if columns["label"] not in row:
        raise DataError(f"no field {columns['label']!r}")
    others = ("id", "domain", "context", "reasoning")
    texts = {key: text_in(row, columns[key]) for key in others if key in columns}
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return with_context(
        {
            "reasoning": None,
            **texts,
            "question": f"{text_in(row, columns['question'])}\n{listed}",
            "answer": letter_of(row[columns["label"]], options),
            "checkpoints": [],
            "level": 1,
            "options": list(options.values()),
        }
    )
