"""What a batch earned by a table of rewards: one array per function, and their weighted sum.

    part_f,B  = gate_f,B · reward_f,B        0 where the function is not for the example's domain
    total_B   = Σ_f weight_f · part_f,B

A function that abstains or fails (`batch`) has the value NaN, counted, with the first reason kept;
the other values are as if nothing had happened. A total that needs a NaN is NaN: the completion
abstains (`advantages`), it is never given a 0. Not needed is what has weight 0, what stands behind
a gate that is 0, and what is for other domains: a function is not called on their examples, where
it has no value, and neither fails nor counts in its mean. So it is with judges behind a gate that
is not above 0: their gates are called first, and again with the others. A gate that a model gives
is not there yet when judges are asked: they are then asked about all completions.

Functions are called here (`in_process`), or in processes that may be ended (`pool`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grpo.rewards.batch import values
from grpo.rewards.given import GIVEN, JUDGED
from grpo.rewards.table import Entry, is_for


class Scores(NamedTuple):
    """What a batch earned; by name: values (NaN: none), parts, number of failures, first reason."""

    rewards: dict[str, np.ndarray]
    parts: dict[str, np.ndarray]
    failed: dict[str, int]
    reasons: dict[str, str]
    total: np.ndarray


class Call(NamedTuple):
    """The completions that a function is asked about, each with its example."""

    entry: Entry
    examples: Sequence[Mapping]
    completions: Sequence[str]


Told = Mapping[str, tuple[np.ndarray, str | None]]  # what `values` returns, by name
Caller = Callable[[Mapping[str, Call], float], Told]


def in_process(calls: Mapping[str, Call], seconds: float) -> Told:
    """Calls the functions here, one after the other."""
    told = {}
    for name, (entry, examples, completions) in calls.items():
        limits = {"low": entry.low, "high": entry.high, "seconds": seconds}
        told[name] = values(entry.function, examples, completions, **limits)
    return told


def gated(
    rewards: Mapping[str, np.ndarray],
    asked: Mapping[str, np.ndarray],
    table: Mapping[str, Entry],
) -> dict[str, np.ndarray]:
    """part_f,B by name: 0 behind a gate that is 0, and where nothing was asked."""
    parts = {}
    for name, entry in table.items():
        gate_B = np.ones_like(rewards[name]) if entry.gate is None else rewards[entry.gate]
        behind_gate_B = np.where(gate_B == 0, 0.0, gate_B * rewards[name])
        parts[name] = np.where(asked[name], behind_gate_B, 0.0)
    return parts


def total(
    parts: Mapping[str, np.ndarray], table: Mapping[str, Entry], completions: int
) -> np.ndarray:
    """total_B, by the formula of this module; 0 where nothing has a weight."""
    # A weight of 0 is no factor: it would pass a NaN on.
    weighed = [entry.weight * parts[name] for name, entry in table.items() if entry.weight]
    return np.sum([np.zeros(completions), *weighed], axis=0)


def asked_about(
    table: Mapping[str, Entry],
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    seconds: float,
    caller: Caller,
) -> dict[str, np.ndarray]:
    """By judged reward, the completions that count: of its domains, behind a gate above 0."""
    judged = {name: table[name] for name in JUDGED if name in table}
    gates = {entry.gate: table[entry.gate] for entry in judged.values() if entry.gate}
    first = {gate: entry for gate, entry in gates.items() if gate not in GIVEN}
    found = score(first, examples, completions, seconds=seconds, caller=caller).rewards
    asked = {}
    for name, entry in judged.items():
        asked[name] = np.array([is_for(entry, example) for example in examples], bool)
        if entry.gate in found:
            asked[name] &= found[entry.gate] > 0
    return asked


def score(
    table: Mapping[str, Entry],
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    seconds: float,
    caller: Caller = in_process,
) -> Scores:
    """Every function's value of every completion, and the total; a value has so many seconds."""
    if len(examples) != len(completions):
        raise ValueError(f"{len(examples)} examples for {len(completions)} completions")
    asked, calls = {}, {}
    for name, entry in table.items():
        asked[name] = np.array([is_for(entry, example) for example in examples], bool)
        if rows := np.flatnonzero(asked[name]).tolist():
            batch = [examples[row] for row in rows], [completions[row] for row in rows]
            calls[name] = Call(entry, *batch)
    told = caller(calls, seconds)
    rewards = {name: np.full(len(examples), np.nan) for name in table}
    for name in told:
        rewards[name][asked[name]] = told[name][0]
    failed = failures(rewards, asked, table)
    reasons = {name: why for name in calls if (why := told[name][1]) is not None}
    parts = gated(rewards, asked, table)
    return Scores(rewards, parts, failed, reasons, total(parts, table, len(completions)))


def failures(
    rewards: Mapping[str, np.ndarray],
    asked: Mapping[str, np.ndarray],
    table: Mapping[str, Entry],
) -> dict[str, int]:
    """How many values are missing by name: of judges, of those behind a gate above 0."""
    failed = {}
    for name, entry in table.items():
        asked_B = asked[name]
        if name in JUDGED and entry.gate is not None:
            asked_B = asked_B & (rewards[entry.gate] > 0)
        failed[name] = int(np.isnan(rewards[name][asked_B]).sum())
    return failed


def shuffled(scores: Scores, seed: Sequence[int]) -> Scores:
    """The same scores, each of another completion: a control that has nothing to teach."""
    order_B = np.random.RandomState(list(seed)).permutation(len(scores.total))

    def each_of(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: x_B[order_B] for name, x_B in arrays.items()}

    of_each = {"rewards": each_of(scores.rewards), "parts": each_of(scores.parts)}
    return scores._replace(**of_each, total=scores.total[order_B])


def metrics(scores: Scores) -> dict[str, float]:
    """Of every function: mean and deviation of its values, and which share of them failed."""
    report = {}
    for name, reward_B in scores.rewards.items():
        valid = reward_B[~np.isnan(reward_B)]
        failed = scores.failed[name]
        report[f"reward/{name}/mean"] = float(valid.mean()) if valid.size else math.nan
        report[f"reward/{name}/std"] = float(valid.std()) if valid.size else math.nan
        report[f"reward/{name}/failed"] = failed / max(valid.size + failed, 1)
    return report
