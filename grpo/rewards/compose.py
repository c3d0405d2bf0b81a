"""A table of rewards, and the scores of a batch: one array per function, and their weighted sum.

    total_B = Σ_f weight_f · gate_f,B · reward_f,B

A table is a list of entries, as a config holds it:

    name     of the function in REWARDS; each at most once
    weight   in the total; 0: only logged, or only a gate
    gate     (optional) the name of another entry that multiplies this one; its range: within [0, 1]
    low      the declared range of the function's values, both ends included
    high

A function that raises, or returns what is no number, or one that is not finite or outside its
range, has failed: its value is NaN, counted, with the first reason kept; the other values are as if
nothing had happened. A total that needs a NaN is NaN: the completion abstains (`advantages`), it is
never given a 0. Not needed is what has weight 0, and what stands behind a gate that is 0.
"""

import difflib
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from grpo.rewards import demo
from grpo.rewards.answer import correct_answer
from grpo.rewards.deadline import deadline
from grpo.rewards.format import strict_format, tag_format
from grpo.rewards.hybrid import hybrid
from grpo.rewards.trajectory import trajectory

Reward = Callable[[Mapping, str], float]
REWARDS: dict[str, Reward] = {
    "correct_answer": partial(correct_answer, gate=True),
    "correct_answer_in_any_form": partial(correct_answer, gate=False),
    "strict_format": strict_format,
    "tag_format": tag_format,
    "demo_exact_format": demo.exact_format,
    "demo_approximate_format": demo.approximate_format,
    "demo_approximate_format_5": demo.approximate_format_5,
    "demo_answer": demo.answer,
    "demo_numbers": demo.numbers,
    "demo_cli_exact_format": demo.cli_exact_format,
    "demo_cli_answer": demo.cli_answer,
    "demo_cli_numbers": demo.cli_numbers,
    "trajectory": trajectory,
    "hybrid": hybrid,
}
FIELDS = ("name", "weight", "gate", "low", "high")
REASON = 200  # characters of a reason that are kept


class Entry(NamedTuple):
    """A checked line of the table."""

    function: Reward
    weight: float
    gate: str | None
    low: float
    high: float


class Scores(NamedTuple):
    """What a batch earned; by name: values (NaN: failed), number of failures, first reason."""

    rewards: dict[str, np.ndarray]
    failed: dict[str, int]
    reasons: dict[str, str]
    total: np.ndarray


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that looks most like this one."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


def checked(line: Mapping) -> tuple[str, Entry]:
    """A line's name and entry; what is wrong with it is an error that names the field."""
    for field in line:
        if field not in FIELDS:
            raise ValueError(f"rewards: unknown field {field!r}{nearest(field, FIELDS)}")
    missing = [field for field in FIELDS if field not in line and field != "gate"]
    if missing:
        raise ValueError(f"rewards: {line.get('name', 'an entry')} lacks {', '.join(missing)}")
    name = line["name"]
    if name not in REWARDS:
        raise ValueError(f"rewards: unknown reward {name!r}{nearest(name, REWARDS)}")
    weight, low, high = (float(line[field]) for field in ("weight", "low", "high"))
    if not (math.isfinite(weight) and -math.inf < low < high < math.inf):
        raise ValueError(
            f"rewards: {name} has weight {weight} and range [{low}, {high}]: "
            "expected finite numbers, low below high"
        )
    return name, Entry(REWARDS[name], weight, line.get("gate"), low, high)


def reward_table(lines: Iterable[Mapping]) -> dict[str, Entry]:
    """The table of a config's entries, by name."""
    table: dict[str, Entry] = {}
    for line in lines:
        name, entry = checked(line)
        if name in table:
            raise ValueError(f"rewards: {name} is listed twice")
        table[name] = entry
    for fault in faults(table):
        raise ValueError(fault)
    return table


def faults(table: Mapping[str, Entry]) -> Iterator[str]:
    """What is wrong with the entries together."""
    for name, entry in table.items():
        if entry.gate is None:
            continue
        if entry.gate not in table or entry.gate == name:
            others = table.keys() - {name}
            yield (
                f"rewards: the gate of {name} is {entry.gate!r}, which is no other entry"
                f"{nearest(entry.gate, others)}"
            )
            continue
        gate = table[entry.gate]
        if gate.low < 0 or gate.high > 1 or gate.gate is not None:
            yield f"rewards: {entry.gate} as a gate needs a range in [0, 1] and no gate"
    if not any(entry.weight for entry in table.values()):
        yield "rewards: no entry has a weight: one needs another than 0"


def value(entry: Entry, example: Mapping, completion: str) -> float:
    """The function's value; raises if it is none."""
    told = entry.function(example, completion)
    if isinstance(told, bool) or not isinstance(told, int | float | np.integer | np.floating):
        raise TypeError(f"returned {type(told).__name__}, no number")
    if not entry.low <= told <= entry.high:  # NaN is in no range
        raise ValueError(f"returned {told!r}, outside [{entry.low}, {entry.high}]")
    return float(told)


def reason(error: Exception) -> str:
    """An exception in one short line of ASCII."""
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    return line.encode("ascii", "backslashreplace").decode()[:REASON]


def gated(rewards: Mapping[str, np.ndarray], table: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """gate_f,B · reward_f,B by name: 0 behind a gate that is 0, whatever stands there."""
    parts = {}
    for name, entry in table.items():
        gate_B = np.ones_like(rewards[name]) if entry.gate is None else rewards[entry.gate]
        parts[name] = np.where(gate_B == 0, 0.0, gate_B * rewards[name])
    return parts


def total(rewards: Mapping[str, np.ndarray], table: Mapping[str, Entry]) -> np.ndarray:
    """total_B, by the formula of this module."""
    parts = gated(rewards, table)
    # A weight of 0 is no factor: it would pass a NaN on.
    weighed = [entry.weight * parts[name] for name, entry in table.items() if entry.weight]
    return np.sum(weighed, axis=0)


def score(
    table: Mapping[str, Entry],
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    seconds: float,
) -> Scores:
    """Every function's value of every completion, and the total; a call has so many seconds."""
    rewards, failed, reasons = {}, {}, {}
    for name, entry in table.items():
        reward_B = np.full(len(completions), np.nan)
        for i, (example, completion) in enumerate(zip(examples, completions, strict=True)):
            try:
                with deadline(seconds):
                    reward_B[i] = value(entry, example, completion)
            except Exception as error:  # whatever one function does, the others' values stand
                reasons.setdefault(name, reason(error))
        rewards[name] = reward_B
        failed[name] = int(np.isnan(reward_B).sum())
    return Scores(rewards, failed, reasons, total(rewards, table))


def shuffled(scores: Scores, seed: Sequence[int]) -> Scores:
    """The same scores, each of another completion: a control that has nothing to teach."""
    order_B = np.random.RandomState(list(seed)).permutation(len(scores.total))
    rewards = {name: reward_B[order_B] for name, reward_B in scores.rewards.items()}
    return scores._replace(rewards=rewards, total=scores.total[order_B])


def metrics(scores: Scores) -> dict[str, float]:
    """Of every function: mean and deviation of its values, and the share that failed."""
    told = {}
    for name, reward_B in scores.rewards.items():
        valid = reward_B[~np.isnan(reward_B)]
        told[f"reward/{name}/mean"] = float(valid.mean()) if valid.size else math.nan
        told[f"reward/{name}/std"] = float(valid.std()) if valid.size else math.nan
        told[f"reward/{name}/failed"] = scores.failed[name] / max(reward_B.size, 1)
    return told
