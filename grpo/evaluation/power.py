"""What samples of a start policy say of the training to come: numbers only, as JSON holds them.

by difficulty   right answers in strict form: their share, with the interval of mean_interval over
                problems, and pass@k; by the examples' levels and domains, or else by the length
                of their questions in thirds
signal          for each group size G the share of dead groups, all of whose rewards are equal
                (grpo/algorithms/dead_groups.py), with the same interval over problems; with
                R = P · G completions per iteration, R / G groups, of which (1 - f) R / G teach
advice          G: the smallest with f below DEAD, or the one with the least f. Difficulty: that
                whose share is nearest HALF, where the variance of a right answer is largest.
                Temperature: that with the least f at the stage's G. Rules of thumb, beside the
                numbers that they go by; none of them has been shown to train best.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grpo.algorithms.accuracy_estimates import mean_interval, pass_at_k
from grpo.algorithms.dead_groups import dead_chance, dead_share
from grpo.data.curriculum import buckets_of
from grpo.data.examples import Example

Z = 1.96  # of intervals: 95 %
GROUPS = (2, 4, 8, 16, 32)
DEAD, HALF = 0.3, 0.5
PARTS = 3  # of the examples by the length of their questions
EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the histogram; 0 and 1 have a column of their own


def difficulties(examples: Sequence[Example]) -> dict[str, list[int]]:
    """The places of the examples of each level and domain; or in thirds."""
    found: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        found.setdefault(f"level {example['level']:2d}", []).append(place)
    domains: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        if example.get("domain"):
            domains.setdefault(f"domain {example['domain']}", []).append(place)
    if len(found) > 1 or len(domains) > 1:
        return dict(sorted(found.items())) | dict(sorted(domains.items()))
    parts = buckets_of(examples, "length", min(PARTS, len(examples)))
    names = [f"questions, part {n} by length" for n in range(1, len(parts) + 1)]
    return {name: list(part) for name, part in zip(names, parts, strict=True)}


def interval(value_P: np.ndarray, samples: int) -> dict[str, float]:
    """A mean over problems with its interval; so many samples of each were drawn."""
    low, high = mean_interval(value_P, most=len(value_P) * samples, z=Z)
    return {"share": float(np.mean(value_P)), "low": low, "high": high}


def rates(right_Pn: np.ndarray) -> dict[str, Any]:
    """The share of right answers, and pass@k for k = 1, 2, 4, ... up to n."""
    n = right_Pn.shape[1]
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= n]
    passed = {f"pass@{k}": float(np.mean([pass_at_k(r, k) for r in right_Pn])) for k in ks}
    return {"problems": len(right_Pn), **interval(right_Pn.mean(axis=1), n), **passed}


def by_difficulty(examples: Sequence[Example], right_Pn: np.ndarray) -> dict[str, dict[str, Any]]:
    """`rates` of all problems, and of each difficulty."""
    parts = {"all": list(range(len(examples))), **difficulties(examples)}
    return {name: rates(right_Pn[places]) for name, places in parts.items()}


def histogram(right_Pn: np.ndarray) -> dict[str, int]:
    """How many problems have which share of right answers."""
    rate_P = right_Pn.mean(axis=1)
    columns = {"none": int(np.sum(rate_P == 0))}
    for low, high in itertools.pairwise(EDGES):
        inside = (rate_P > low) & ((rate_P <= high) if high < 1 else (rate_P < 1))
        columns[f"to {high:.0%}"] = int(np.sum(inside))
    return {**columns, "all": int(np.sum(rate_P == 1))}


def signal(total_Pn: np.ndarray, group: int, rows: int) -> dict[str, Any]:
    """Of a group size: dead groups, and what is left of `rows` completions per iteration.

    The interval is Wilson's with one group of each problem: too wide for small groups.
    """
    is_fit, groups = group > total_Pn.shape[1], rows / group
    dead = dead_share(total_Pn, group)
    found: dict[str, Any] = {"group": group, "dead": dead, "fitted": is_fit}
    if not is_fit:
        chances = np.array([dead_chance(total_n, group) for total_n in total_Pn])
        found |= {name: interval(chances, 1)[name] for name in ("low", "high")}
    return {**found, "groups": groups, "teaching": groups * (1 - dead)}


def advised_group(signals: Sequence[Mapping[str, Any]]) -> int:
    """The smallest group with few dead ones, or the one with the fewest."""
    enough = [one["group"] for one in signals if one["dead"] < DEAD]
    return min(enough) if enough else min(signals, key=lambda one: one["dead"])["group"]


def advised_difficulty(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The difficulty whose share of right answers is nearest one half."""
    own = {name: part for name, part in parts.items() if name != "all"}
    return min(own, key=lambda name: abs(own[name]["share"] - HALF))
