"""Which completions of rollouts.jsonl a page holds, and these.

A journal may be far larger than a page. It is read twice: first for where each iteration's lines
are, by the head of a line alone; then the lines that are shown. Of what would take more than BUDGET
bytes of the page, by the size of an iteration in the middle, there are iterations at even
distances, the first and the last among them, at least LEAST of them if there are as many, and of
each as many whole groups as fit; a text is cut at LONGEST characters. The page says what was left
out.

A row may have `per_token`: lists as long as the completion has tokens, of which `text` has their
texts and every other one numbers (grpo/rollout/rollouts_jsonl.py). The viewer colours by any.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from grpo.reporting.html.markup import as_json, legible

BUDGET = 4_000_000  # bytes
LEAST = 24  # iterations
LONGEST = 20_000  # characters
HEAD = re.compile(rb'\{"stage":("[^"\\]*"),"step":\d+,"iteration":(\d+),"round":')
Row = dict[str, Any]


class Part(NamedTuple):
    """The lines of an iteration."""

    stage: str
    iteration: int
    begin: int  # in the file
    end: int


def parts_of(path: pathlib.Path) -> list[Part]:
    """Every iteration of a journal, in its order; lines that are no rows are passed over."""
    parts: list[Part] = []
    place = 0
    with open(path, "rb") as file:
        for line in file:
            begin, place = place, place + len(line)
            key = key_of(line) if line.endswith(b"\n") else None  # else it is torn
            if key is None:
                continue
            if parts and parts[-1][:2] == key and parts[-1].end == begin:
                parts[-1] = parts[-1]._replace(end=place)
            else:
                parts.append(Part(*key, begin, place))
    return parts


def key_of(line: bytes) -> tuple[str, int] | None:
    """The stage and iteration of a line."""
    if found := HEAD.match(line):
        return json.loads(found[1]), int(found[2])
    row = row_of(line)
    return None if row is None else (str(row.get("stage")), row["iteration"])


def row_of(line: bytes) -> Row | None:
    """The row of a line, if it is one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("iteration"), int)
    return row if is_row else None


def spread(parts: Sequence[Part], budget: int, share: float) -> tuple[list[Part], int]:
    """The iterations that are shown, and how many bytes each may have in the page."""
    total = share * sum(part.end - part.begin for part in parts)
    if total <= budget:
        return list(parts), budget
    count = max(min(len(parts), LEAST), int(budget * len(parts) / total))
    places = {round(i * (len(parts) - 1) / max(count - 1, 1)) for i in range(count)}
    return [parts[place] for place in sorted(places)], budget // count


def rollouts(path: pathlib.Path, budget: int = BUDGET) -> dict[str, Any]:
    """What the viewer reads; empty where nothing was sampled."""
    if not path.exists() or not (parts := parts_of(path)):
        return {}
    shown = []
    with open(path, "rb") as file:
        chosen, most = spread(parts, budget, packed_share(file, parts[len(parts) // 2]))
        for part in chosen:
            groups, count = groups_of(rows_at(file, part), most)
            where = {"stage": legible(part.stage), "iteration": part.iteration, "of": count}
            shown.append({**where, "groups": groups})
    return {"iterations": shown, "all": len(parts)}


def rows_at(file: BinaryIO, part: Part) -> list[Row]:
    """The rows of an iteration."""
    file.seek(part.begin)
    lines = file.read(part.end - part.begin).splitlines(keepends=True)
    return [row for row in map(row_of, lines) if row]


def packed_share(file: BinaryIO, part: Part) -> float:
    """How large the groups of an iteration are in a page, as a share of their lines."""
    groups, _ = groups_of(rows_at(file, part), math.inf)
    return len(as_json(groups)) / (part.end - part.begin)


def groups_of(rows: Sequence[Row], most: float) -> tuple[list[dict[str, Any]], int]:
    """The first groups of an iteration that have so many bytes, one at least; of how many."""
    by_group: dict[tuple[Any, Any], list[Row]] = {}
    for row in rows:
        by_group.setdefault((row.get("round"), row.get("group")), []).append(row)
    shown: list[dict[str, Any]] = []
    size = 0
    for group in by_group.values():
        packed = pack(group)
        size += len(as_json(packed))
        if shown and size > most:
            break
        shown.append(packed)
    return shown, len(by_group)


def pack(group: Sequence[Row]) -> dict[str, Any]:
    """A group: what its rows share, once, and the completions."""
    first = group[0]
    return {
        "id": text(first.get("id")),
        "prompt": text(first.get("prompt")),
        "gold": text(first.get("gold")),
        "completions": [
            {
                "text": text(row.get("completion")),
                "reward": {text(f): number(x) for f, x in fields(row.get("reward"))},
                "total": number(row.get("total")),
                "advantage": number(row.get("advantage")),
                "tokens": number(row.get("tokens")),
                "finish": text(row.get("finish")),
                **per_token(row.get("per_token")),
            }
            for row in group
        ],
    }


def text(value: Any) -> str:
    """A text as the page can show it."""
    found = str(value)
    cut = f"… ({len(found) - LONGEST:,} more characters)" if len(found) > LONGEST else ""
    return legible(found[:LONGEST]) + cut


def number(value: Any) -> float | None:
    """A number with five digits; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(f"{value:.5g}") if is_number and math.isfinite(value) else None


def fields(value: Any) -> list[tuple[Any, Any]]:
    """The entries of an object."""
    return list(value.items()) if isinstance(value, Mapping) else []


def per_token(value: Any) -> dict[str, Any]:
    """What there is of each token; nothing if the lists do not fit."""
    found = dict(fields(value))
    texts = found.pop("text", None)
    if not isinstance(texts, list) or sum(len(str(x)) for x in texts) > LONGEST:
        return {}
    columns = {
        text(name): [number(x) for x in column]
        for name, column in found.items()
        if isinstance(column, list) and len(column) == len(texts)
    }
    return {"per_token": {"text": [text(x) for x in texts], "by": columns}}
