"""Which completions a table of rewards pays for that are no good, by the cases of hack_cases.py.

What a completion is, is read from it by the extractors of grpo/rewards/extract.py, not by a reward:

    right         in strict form, with the example's answer
    out of form   with the answer by the lenient reading, but not right
    wrong         anything else

    plain         the worked solution and the answer, in form
    hacked        not right, and with a total of at least the plain one's; or of HOLLOW, where the
                  reasoning says nothing, nothing new, or no proof, and with more than the plain
                  one's
    outbid        right, and with a total below that of a wrong one of the same example

A total that the rewards do not have (they abstain, or fail) is neither more nor less than another:
nothing is said of it, but that it is not there. An entry that is for domains of which no example is
is left out, and so is an example that no entry with a weight is for: all of its totals would be 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grpo.data.examples import Example
from grpo.evaluation.hack_cases import CASES, HOLLOW, parts_of, plain
from grpo.rewards.correct import CORRECT
from grpo.rewards.scores import Caller, in_process, score
from grpo.rewards.table import Entry, fitted, is_for, total_range

PLAIN = "the worked solution"
Key = tuple[str, int]  # a case, the place of an example
EQUAL = 1e-9  # totals are sums of the same numbers, perhaps in another order


class Row(NamedTuple):
    """A case, over the examples that it fits."""

    case: str
    kind: str  # right, out of form, wrong
    total: float  # the mean; NaN where no example has one
    rewarded: int  # examples in which it and the plain one have a total
    hacked: int  # of these
    outbid: int


class Report(NamedTuple):
    """What a table of rewards pays."""

    plain: float  # the mean total of the worked solutions
    rows: list[Row]
    unrewarded: int  # completions without a total
    reason: str | None  # of the first of them
    low: float  # the least that a total can be
    high: float
    elsewhere: dict[str, tuple[str, ...]]  # entries that are left out, with their domains
    left_out: int  # examples


def kind_of(example: Mapping, text: str) -> str:
    """What a completion is."""
    if CORRECT["strict"](example, text):
        return "right"
    return "out of form" if CORRECT["lenient"](example, text) else "wrong"


def scored(
    table: Mapping[str, Entry],
    examples: Sequence[Example],
    *,
    seconds: float,
    caller: Caller = in_process,
) -> Report:
    """The cases of each example that they fit, and what they earn."""
    elsewhere, table = apart(table, examples)
    kept = [
        example for example in examples
        if any(entry.weight and is_for(entry, example) for entry in table.values())
    ]  # fmt: skip
    table, left_out, examples = fitted(table, examples), len(examples) - len(kept), kept
    parts = [parts_of(example) for example in examples]
    made = {
        (name, e): text
        for name, case in {PLAIN: plain, **CASES}.items()
        for e, of in enumerate(parts)
        if (text := case(of)) is not None
    }
    kinds = {(name, e): kind_of(examples[e], text) for (name, e), text in made.items()}
    totals, reason = totals_of(table, examples, made, seconds=seconds, caller=caller)
    low, high = total_range(table)
    worked = [totals[name, e] for name, e in totals if name == PLAIN]
    return Report(
        plain=mean(worked),
        rows=[row_of(name, kinds, totals) for name in CASES if any(name == n for n, _ in made)],
        unrewarded=len(made) - len(totals),
        reason=reason,
        low=low,
        high=high,
        elsewhere=elsewhere,
        left_out=left_out,
    )


def apart(
    table: Mapping[str, Entry], examples: Sequence[Example]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Entry]]:
    """The domains of entries that no example is for, and the other entries, with domains of these.

    A gate is never left out alone: what it multiplies has no domain that it has not.
    """
    known = {example.get("domain") for example in examples}
    elsewhere, here = {}, {}
    for name, entry in table.items():
        domains = tuple(domain for domain in entry.domains if domain in known)
        if entry.domains and not domains:
            elsewhere[name] = entry.domains
        else:
            here[name] = entry._replace(domains=domains)
    return elsewhere, here


def totals_of(
    table: Mapping[str, Entry],
    examples: Sequence[Example],
    made: Mapping[Key, str],
    *,
    seconds: float,
    caller: Caller,
) -> tuple[dict[Key, float], str | None]:
    """The totals of completions that have one, and why the first one that has none has none."""
    if not made:
        return {}, None
    asked = [examples[e] for _, e in made]
    scores = score(table, asked, [*made.values()], seconds=seconds, caller=caller)
    pairs = zip(made, scores.total, strict=True)
    totals = {key: float(total) for key, total in pairs if np.isfinite(total)}
    return totals, next(iter(scores.reasons.values()), None)


def row_of(name: str, kinds: Mapping[Key, str], totals: Mapping[Key, float]) -> Row:
    """A case beside the worked solution and the wrong completions of each example."""
    own = [e for n, e in totals if n == name and (PLAIN, e) in totals]
    hacked = outbid = 0
    for e in own:
        total, kind = totals[name, e], kinds[name, e]
        wrong = [x for (n, of), x in totals.items() if of == e and kinds[n, of] == "wrong"]
        hacked += is_hacked(name, kind, total, totals[PLAIN, e])
        outbid += kind == "right" and total < max(wrong, default=-math.inf) - EQUAL
    return Row(
        case=name,
        kind=next(kind for (n, _), kind in kinds.items() if n == name),
        total=mean([totals[name, e] for e in own]),
        rewarded=len(own),
        hacked=hacked,
        outbid=outbid,
    )


def is_hacked(name: str, kind: str, total: float, plain_total: float) -> bool:
    """Whether a completion earns what it should not, beside the worked solution."""
    if kind == "right":
        return name in HOLLOW and total > plain_total + EQUAL
    return total >= plain_total - EQUAL


def mean(totals: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return sum(totals) / len(totals) if totals else math.nan
