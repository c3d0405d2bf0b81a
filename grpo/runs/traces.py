"""Worked solutions that are asked for, filtered and kept: what the command and the stage share.

In a folder are then

    replies.jsonl   everything that was said (grpo/judges/replay.py)
    traces.jsonl    a row for each question that has a solution, for config.data.source=traces
    dropped.jsonl   every other question, and why it has none

The reasons are those of grpo/judges/teacher.py and collecting.py, and of tokens: a question whose
prompt is too long is not asked, a solution that is too long is dropped, and neither is cut.
traces.jsonl is written last, and only if there are enough: where it is, all is done.
"""

import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from grpo.data import traces
from grpo.data.examples import Example
from grpo.data.filters import require_kept
from grpo.data.forms import FILES
from grpo.data.templates import Template, target_ids
from grpo.judges.collecting import Collected, Sample, collect
from grpo.judges.teacher import COLUMNS, WAYS, Row
from grpo.storage.journal import encode, replace
from models.tokenizer import Tokenizer

REPLIES, TRACES, DROPPED = "replies.jsonl", "traces.jsonl", "dropped.jsonl"
LONG_PROMPT, LONG = "prompt too long", "too long"


class Wanted(NamedTuple):
    """How solutions are asked for, and what they must be."""

    way: str  # a name in WAYS
    fits: Callable[[Example], bool]  # whether an example's prompt is asked
    checkpoints: int  # of a solution, at least
    tokenizer: Tokenizer | None  # counts a solution's tokens; None: no solution is too long
    template: Template  # in which they are counted
    max_target: int


def gather(
    examples: Sequence[Example],
    samples: Sequence[Sample],
    wanted: Wanted,
    *,
    batch: int,
) -> Iterator[Collected]:
    """Asks; what is kept and dropped, after each batch of so many questions."""
    long = {example["id"]: LONG_PROMPT for example in examples if not wanted.fits(example)}
    asked = [example for example in examples if example["id"] not in long]
    for now in collect(
        asked, samples, prompt_of=WAYS[wanted.way].prompt_of, read=reader(wanted), batch=batch
    ):
        yield now._replace(dropped={**long, **now.dropped})
    if not asked:
        yield Collected({}, long, Counter())


def reader(wanted: Wanted) -> Callable[[Example, str], Row | str]:
    """What makes a row of a reply, if its solution is not too long."""

    def read(example: Example, reply: str) -> Row | str:
        row = WAYS[wanted.way].trace_of(example, reply, least=wanted.checkpoints)
        if isinstance(row, str) or wanted.tokenizer is None:
            return row
        target = target_ids(wanted.tokenizer, traces.from_row(row, COLUMNS), wanted.template)
        return LONG if len(target) > wanted.max_target else row

    return read


def about(found: Collected, total: int) -> list[str]:
    """What there is to say at the end."""
    kept = len(found.kept)
    lines = [f"kept {kept} of {total} questions ({kept / total:.1%})"]
    domains = Counter(row["domain"] for row in found.kept.values())
    reasons = Counter(": ".join(r.split(": ")[:2]) if r.startswith("failed: ") else r
                      for r in found.dropped.values())  # fmt: skip
    for head, counts in (("kept", domains), ("dropped", reasons), ("teacher", found.metrics)):
        lines += [f"{head}: {name} {count:g}" for name, count in sorted(counts.items())]
    return lines


def keep(
    folder: pathlib.Path, examples: Sequence[Example], found: Collected, least: float, name: str
) -> None:
    """Writes why questions have no solution, and, if a share `least` has one, the solutions."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / DROPPED, [{"id": e["id"], "reason": found.dropped[e["id"]]}
                             for e in examples if e["id"] not in found.kept])  # fmt: skip
    require_kept(len(found.kept) / len(examples), least, name)
    write(folder / TRACES, [found.kept[e["id"]] for e in examples if e["id"] in found.kept])


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """A file of rows, whole or as it was."""
    replace(path, b"".join(encode(row) for row in rows))


def kept_in(folder: pathlib.Path) -> list[Example]:
    """The examples that the solutions in a folder are."""
    section = {"columns": COLUMNS, "max_bad": 0.0}
    return FILES["traces"].load(str(folder / TRACES), section)[0]
