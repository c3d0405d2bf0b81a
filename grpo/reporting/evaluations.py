"""The tables of an evaluation stage, from evaluations/<stage>.json.

accuracy   a line per policy: right answers by each reading, as greedy completions, or else
           samples, have them
form       a line per policy: how its completions look
samples    a column per policy: mean@n, pass@k and maj@k
domains    a column per policy: right answers in strict form by domain, if there are several
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.reporting.progress import table
from grpo.reporting.text import duration

Found = Mapping[str, Any]  # the metrics of a policy
Results = Mapping[str, Found]  # by policy


def last_policy(stages: Mapping[str, Any], names: Sequence[str]) -> str:
    """What a run is about: its last GRPO stage that is no control, or any, or else the last."""
    grpo = [name for name in names if stages.get(name, {}).get("kind") == "grpo"]
    own = [name for name in grpo if not stages[name].get("shuffle_rewards")]
    return [*names, *grpo, *own][-1]


def share(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, digits: int) -> str:
    """A number with so many decimals."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(found: Found, name: str) -> str:
    """The interval of a share in percent, if it was measured."""
    low, high = found.get(f"{name}/low"), found.get(f"{name}/high")
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def with_interval(found: Found, name: str) -> str:
    """A share in percent, and its interval."""
    around = interval(found, name)
    return share(found.get(name)) + (f" ({around})" if around else "")


def looks_of(found: Found) -> Found:
    """The metrics of greedy completions, or where there are none the same of samples."""
    sampled = {n.removeprefix("sampled/"): x for n, x in found.items() if n.startswith("sampled/")}
    return {**sampled, **found}


def accuracy_table(results: Results, seconds: Mapping[str, float]) -> str:
    """Right answers, a line per policy; how long the stage took that trained it."""
    header = ["after", "right", "95 % interval", "lenient", "demo", "partial", "time"]
    lines = []
    for policy, found in results.items():
        looks = looks_of(found)
        lines.append([
            policy,
            share(looks.get("accuracy/strict")),
            interval(looks, "accuracy/strict"),
            *(share(looks.get(f"accuracy/{name}")) for name in ("lenient", "demo", "partial")),
            duration(seconds[policy]) if policy in seconds else "",
        ])  # fmt: skip
    return table(header, lines)


def form_table(results: Results) -> str:
    """How completions look, a line per policy."""
    header = ["after", "in form", "demo's form", "tags of 4", "cut off", "tokens"]
    lines = []
    for policy, found in results.items():
        looks = looks_of(found)
        lines.append([
            policy,
            *(share(looks.get(name)) for name in ("format/strict", "format/demo")),
            decimal(looks.get("format/tags"), 2),
            share(looks.get("truncated")),
            decimal(looks.get("length/mean"), 1),
        ])  # fmt: skip
    return table(header, lines)


def samples_table(results: Results) -> str:
    """Several samples of each problem, a column per policy; nothing where none were drawn."""
    kinds = ("mean@", "pass@", "maj@")
    names = dict.fromkeys(
        name
        for found in results.values()
        for name in found
        if name.startswith(kinds) and not name.endswith(("/low", "/high"))
    )
    # By kind, so that one can follow each through its ks.
    ordered = [name for kind in kinds for name in names if name.startswith(kind)]
    lines = [
        [
            name.replace("/strings", ", strings"),
            *(with_interval(found, name) for found in results.values()),
        ]
        for name in ordered
    ]
    return table(["of samples", *results], lines) if lines else ""


def domain_table(results: Results) -> str:
    """Right answers in strict form by domain, a column per policy; nothing of one domain."""
    counts: dict[str, int] = {}
    for found in results.values():
        for domain, of_one in found.get("domains", {}).items():
            counts[domain] = of_one["problems"]
    if len(counts) < 2:
        return ""
    lines = []
    for domain, count in counts.items():
        cells = [found.get("domains", {}).get(domain, {}) for found in results.values()]
        lines.append(
            [domain, str(count), *(with_interval(cell, "accuracy/strict") for cell in cells)]
        )
    return table(["domain", "problems", *results], lines)
