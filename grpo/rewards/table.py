"""A table of rewards, and the scores of a batch: one array per function, and their weighted sum.

    total_B = Σ_f weight_f · gate_f,B · reward_f,B

A table is a list of entries, as a config holds it:

    name     of the function in REWARDS; each at most once
    weight   in the total; 0: only logged, or only a gate
    gate     (optional) the name of another entry that multiplies this one; its range: within [0, 1]
    low      the declared range of the function's values, both ends included
    high
    options  (optional) of the function, by name: `batch` says what a reward function is

A function that abstains or fails (`batch`) has the value NaN, counted, with the first reason kept;
the other values are as if nothing had happened. A total that needs a NaN is NaN: the completion
abstains (`advantages`), it is never given a 0. Not needed is what has weight 0, and what stands
behind a gate that is 0.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grpo.data.nearest import nearest
from grpo.rewards import demo
from grpo.rewards.answer import correct_answer
from grpo.rewards.batch import Reward, each, options_of, values
from grpo.rewards.format import strict_format, tag_format
from grpo.rewards.hybrid import hybrid
from grpo.rewards.plan import plan
from grpo.rewards.trajectory import trajectory

REWARDS: dict[str, Reward] = {
    "correct_answer": each(correct_answer),
    "strict_format": each(strict_format),
    "tag_format": each(tag_format),
    "demo_exact_format": each(demo.exact_format),
    "demo_approximate_format": each(demo.approximate_format),
    "demo_approximate_format_5": each(demo.approximate_format_5),
    "demo_answer": each(demo.answer),
    "demo_numbers": each(demo.numbers),
    "demo_cli_exact_format": each(demo.cli_exact_format),
    "demo_cli_answer": each(demo.cli_answer),
    "demo_cli_numbers": each(demo.cli_numbers),
    "plan": each(plan),
    "trajectory": each(trajectory),
    "hybrid": each(hybrid),
}
REQUIRED, OPTIONAL = ("name", "weight", "low", "high"), ("gate", "options")


class Entry(NamedTuple):
    """A checked line of the table; the function has its options."""

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


def about_options(name: str, options: Mapping) -> Iterator[str]:
    """What is wrong with the names of a function's options."""
    known = options_of(REWARDS[name])
    for option in options:
        if option not in known:
            takes = f"; {name} takes {', '.join(known) or 'none'}"
            yield f"{option}: unknown option{nearest(option, known) or takes}"
    for option, parameter in known.items():
        if option not in options and parameter.default is parameter.empty:
            yield f"{option}: is missing; {name} needs it"


def checked(line: Mapping) -> tuple[str, Entry]:
    """A line's name and entry; what is wrong with it is an error that names the field."""
    for field in line:
        if field not in REQUIRED + OPTIONAL:
            hint = nearest(field, REQUIRED + OPTIONAL)
            raise ValueError(f"rewards: unknown field {field!r}{hint}")
    if missing := [field for field in REQUIRED if field not in line]:
        raise ValueError(f"rewards: {line.get('name', 'an entry')} lacks {', '.join(missing)}")
    name, options = line["name"], dict(line.get("options", {}))
    if name not in REWARDS:
        raise ValueError(f"rewards: unknown reward {name!r}{nearest(name, REWARDS)}")
    for wrong in about_options(name, options):
        raise ValueError(f"rewards.{name}.options.{wrong}")
    weight, low, high = (float(line[field]) for field in ("weight", "low", "high"))
    if not (math.isfinite(weight) and -math.inf < low < high < math.inf):
        raise ValueError(
            f"rewards: {name} has weight {weight} and range [{low}, {high}]: "
            "expected finite numbers, low below high"
        )
    function = functools.partial(REWARDS[name], **options)
    return name, Entry(function, weight, line.get("gate"), low, high)


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


def total_range(table: Mapping[str, Entry]) -> tuple[float, float]:
    """The least and the most that a total can be."""
    ends = []
    for entry in table.values():
        low, high = entry.low, entry.high
        if entry.gate is not None:  # which may be 0
            low, high = min(low, 0.0), max(high, 0.0)
        ends.append(sorted((entry.weight * low, entry.weight * high)))
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def score(
    table: Mapping[str, Entry],
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    seconds: float,
) -> Scores:
    """Every function's value of every completion, and the total; a value has so many seconds."""
    if len(examples) != len(completions):
        raise ValueError(f"{len(examples)} examples for {len(completions)} completions")
    rewards, failed, reasons = {}, {}, {}
    for name, entry in table.items():
        rewards[name], why = values(
            entry.function, examples, completions, low=entry.low, high=entry.high, seconds=seconds
        )
        failed[name] = int(np.isnan(rewards[name]).sum())
        if why is not None:
            reasons[name] = why
    return Scores(rewards, failed, reasons, total(rewards, table))


def shuffled(scores: Scores, seed: Sequence[int]) -> Scores:
    """The same scores, each of another completion: a control that has nothing to teach."""
    order_B = np.random.RandomState(list(seed)).permutation(len(scores.total))
    rewards = {name: reward_B[order_B] for name, reward_B in scores.rewards.items()}
    return scores._replace(rewards=rewards, total=scores.total[order_B])


def metrics(scores: Scores) -> dict[str, float]:
    """Of every function: mean and deviation of its values, and the share that failed."""
    report = {}
    for name, reward_B in scores.rewards.items():
        valid = reward_B[~np.isnan(reward_B)]
        report[f"reward/{name}/mean"] = float(valid.mean()) if valid.size else math.nan
        report[f"reward/{name}/std"] = float(valid.std()) if valid.size else math.nan
        report[f"reward/{name}/failed"] = scores.failed[name] / max(reward_B.size, 1)
    return report
