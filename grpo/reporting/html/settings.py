"""What a run was told and what it found there: its config, its environment, its data, by field."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.html.markup import code, escaped, folded, paragraph, section, table
from grpo.reporting.html.run_files import Row, changed_leaves

LONGEST = 400  # characters of a value


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """The fields of a config by their paths."""
    if isinstance(value, Mapping) and value:
        return [
            leaf
            for key, part in value.items()
            for leaf in leaves(part, f"{path}.{key}" if path else str(key))
        ]
    return [(path, value)]


def fields_of(value: Any, title: str) -> str:
    """A table of fields."""
    lines = [[code(path), literal(x)] for path, x in leaves(value)]
    return table(["field", "value"], lines, caption=title)


def literal(value: Any) -> str:
    """A value of a config."""
    text = json.dumps(value, ensure_ascii=False)
    return f"<code>{escaped(text[:LONGEST])}{'…' * (len(text) > LONGEST)}</code>"


def differences(there: Mapping[str, Any], here: Mapping[str, Any], names: Sequence[str]) -> str:
    """The leaves in which two configs differ."""
    lines = [
        [code(path), literal(a), literal(b)] for path, a, b in changed_leaves(there, here)
    ]  # fmt: skip
    return table(["field", *names], lines, caption=f"{names[1]} beside {names[0]}") if lines else ""


def config(
    here: Mapping[str, Any], there: Mapping[str, Any] | None = None, name: str = "another"
) -> str:
    """The section of the config: its difference to another, stages of a kind, every field."""
    parts = []
    if there is not None:
        same = paragraph(f"No field differs from {name}.")
        changed = differences(there, here, [name, "here"])
        parts += [f"<h3>Beside {escaped(name)}</h3>", changed or same]
    stages, seen = here.get("stages", {}), {}
    for stage in [name for name in here.get("pipeline", ()) if name in stages]:
        first = seen.setdefault(stages[stage].get("kind"), stage)
        if first != stage:
            parts.append(differences(stages[first], stages[stage], [first, stage]))
    for key, value in here.items():
        if isinstance(value, Mapping) and value:
            groups = value.items() if key == "stages" else [("", value)]
            for stage, fields in groups:
                title = f"{key}.{stage}" if stage else key
                parts.append(folded(title, fields_of(fields, title)))
    own = {key: x for key, x in here.items() if not (isinstance(x, Mapping) and x)}
    parts.append(folded("of the run", fields_of(own, "of the run")))
    return section("config", "Config", *parts)


def environment(rows: Sequence[Row]) -> str:
    """The section of what launches ran on, a column each."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[code(name), *(literal(row.get(name)) for row in rows)] for name in names]
    header = ["", *(f"launch {i + 1}" for i in range(len(rows)))]
    return section("environment", "Environment", table(header, lines, caption="what it ran on"))


def report_on(title: str, name: str, found: Mapping[str, Any]) -> str:
    """The section of what else was found, such as what became of the data, by field."""
    return section(name, title, *(fields_of(part, key) for key, part in found.items()))
