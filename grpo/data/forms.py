"""The forms that files may have, by the name of their source in a config."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from grpo.data import choices, gsm8k, preferences, rubrics, sources, traces
from grpo.data.examples import REQUIRED, Example, check_columns

Section = Mapping[str, Any]
Found = tuple[list[Example], dict[str, Any]]


class Source(NamedTuple):
    """Files of a form: what their rows are, the columns these need and may have, the reader."""

    rows: str
    required: set[str]
    optional: set[str]
    load: Callable[[str, Section], Found]


def examples_by(form: Any) -> Source:
    """Files whose rows a module makes examples of: its REQUIRED, OPTIONAL, from_row."""

    def load(path: str, data: Section) -> Found:
        check_columns(data["columns"], form.REQUIRED, form.OPTIONAL)
        convert = functools.partial(form.from_row, columns=data["columns"])
        return sources.load(path, convert, data["max_bad"])

    return Source("examples", form.REQUIRED, form.OPTIONAL, load)


FILES = {
    "gsm8k": Source(
        "examples",
        REQUIRED,
        gsm8k.OPTIONAL,
        lambda path, data: gsm8k.load_gsm8k(
            path, data["columns"], data["strip_commas"], data["max_bad"], data["calculator"]
        ),
    ),
    "rows": Source(
        "examples",
        REQUIRED,
        sources.OPTIONAL,
        lambda path, data: sources.load_examples(path, data["columns"], data["max_bad"]),
    ),
    "traces": examples_by(traces),
    "rubrics": examples_by(rubrics),
    "choices": examples_by(choices),
    "preferences": Source(
        "preferences",
        preferences.REQUIRED,
        preferences.OPTIONAL,
        lambda path, data: preferences.load_preferences(path, data["columns"], data["max_bad"]),
    ),
}
