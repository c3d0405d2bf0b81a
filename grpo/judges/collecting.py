"""Questions put to a teacher, sample after sample, until each has a solution that is kept.

The first sample asks every question; each further one, with a seed of its own, only those that have
no solution yet: one for each question is kept, as only one could be trained on (a dataset leaves
out a question that it has already). A solution is kept if none before it has the same text, but for
case and white space. Everything follows from the questions and the replies, so with a recording
(`replay`) it can be stopped anywhere and started again.

A teacher that does not take the key ends it, and so does one that at the end of a batch has left
IN_A_ROW questions in a row without a reply.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.data.examples import Example
from grpo.judges.asking import Ask, Reply, kind_of, metrics_of, question
from grpo.judges.http import ENDS
from grpo.judges.teacher import Row

IN_A_ROW = 20


class TeacherError(RuntimeError):
    """A teacher that does not answer; one line."""


class Sample(NamedTuple):
    """One way to ask: who is, and what with."""

    ask: Ask
    asked: Mapping[str, Any]  # model and settings, which tell the samples apart


class Collected(NamedTuple):
    """What there is so far, by the ids of the examples."""

    kept: dict[str, Row]
    dropped: dict[str, str]  # why the last sample was not kept
    metrics: Counter[str]


def collect(
    examples: Sequence[Example],
    samples: Sequence[Sample],
    *,
    prompt_of: Callable[[Example], str],
    read: Callable[[Example, str], Row | str],
    batch: int,
) -> Iterator[Collected]:
    """What is kept and dropped, after each batch of so many questions."""
    kept, dropped, metrics = {}, {}, Counter()
    texts: set[str] = set()
    lost = 0
    for sample in samples:
        left = [example for example in examples if example["id"] not in kept]
        for start in range(0, len(left), batch):
            part = left[start : start + batch]
            replies = sample.ask([question(prompt_of(e), sample.asked) for e in part])
            metrics.update(metrics_of(replies))
            for example, reply in zip(part, replies, strict=True):
                found = outcome(example, reply, read, texts)
                if isinstance(found, str):
                    dropped[example["id"]] = found
                else:
                    texts.add(normalised(found["chosen"]))
                    kept[example["id"]] = found
                    dropped.pop(example["id"], None)
                lost = lost + 1 if reply.reason else 0
                if reply.reason and kind_of(reply.reason) in ENDS:
                    raise TeacherError(f"the teacher does not answer: {reply.reason}")
            if lost >= IN_A_ROW:
                raise TeacherError(f"the teacher does not answer: {replies[-1].reason}")
            yield Collected(kept, dropped, metrics)


def outcome(
    example: Example, reply: Reply, read: Callable[[Example, str], Row | str], texts: set[str]
) -> Row | str:
    """The row of a reply, or why it is not kept."""
    if reply.text is None:
        return f"failed: {reply.reason}"
    found = read(example, reply.text)
    if not isinstance(found, str) and normalised(found["chosen"]) in texts:
        return "repeated"
    return found


def normalised(text: str) -> str:
    """A text without case and runs of white space."""
    return " ".join(text.split()).casefold()
