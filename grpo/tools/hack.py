"""What the rewards of a config would pay for: the cases of grpo/evaluation/hack_cases.py, scored.

No policy is needed. Each stage that has rewards gets a table: of every completion what it is, what
it earns (the mean over examples, and its place between the least and the most that a total can be),
and in how many of the examples it is hacked or outbid (grpo/evaluation/hacks.py). The examples are
built-in ones, and the first ones of the stage's dataset where its files are here; nothing is
fetched.
"""

import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from grpo.data.datasets import SPLITS, load_dataset, section_of
from grpo.data.examples import Example
from grpo.evaluation.hack_cases import EXAMPLES
from grpo.evaluation.hacks import PLAIN, Report, scored
from grpo.reporting.progress import table
from grpo.rewards.pool import caller_of
from grpo.rewards.table import pays, reward_table

OF_DATASET = 4  # examples


def hack(config: Mapping[str, Any]) -> list[str]:
    """What there is to say, stage by stage."""
    stages = config["stages"]
    found = [
        line for name in config["pipeline"] if pays(stages[name].get("rewards", {}))
        for line in about(name, *report_of(config, name))
    ]  # fmt: skip
    return found or ["no stage of the pipeline has rewards"]


def about(name: str, report: Report, own: int) -> Iterator[str]:
    """The table of a stage, with so many examples of its own, and what it comes to."""
    yield f"{name}: {len(EXAMPLES)} built-in examples, {own} of its dataset"
    for entry, domains in report.elsewhere.items():
        yield f"{name}: {entry} is not for these examples, but for {', '.join(domains)}"
    if report.left_out:
        yield f"{name}: no reward with a weight is for {report.left_out} of the examples"
    if not report.rows:
        return
    yield f"{name}: a total is {number(report.low)} to {number(report.high)}"
    yield shown(report)
    hacked, outbid = (
        sum(bool(getattr(row, field)) for row in report.rows) for field in ("hacked", "outbid")
    )
    yield (
        f"{name}: {hacked} of {len(report.rows)} are hacked: they earn what the worked solution "
        f"earns, or more; {outbid} right ones are outbid by a wrong one"
    )
    if report.unrewarded:
        yield f"{name}: {report.unrewarded} completions have no total: {report.reason}"


def report_of(config: Mapping[str, Any], name: str) -> tuple[Report, int]:
    """What the rewards of a stage pay, and how many examples of its dataset are among them."""
    stage, own = config["stages"][name], examples_of(config, name)
    rewards = reward_table({"name": f, **entry} for f, entry in stage["rewards"].items())
    examples, seconds = [*EXAMPLES, *own], stage["reward_seconds"]
    with caller_of(rewards, examples, stage, lambda: None) as caller:
        return scored(rewards, examples, seconds=seconds, caller=caller), len(own)


def examples_of(config: Mapping[str, Any], name: str) -> list[Example]:
    """The first training examples of a stage, none where a file of its dataset is not here."""
    data = section_of(config, config["stages"][name]["data"])
    if not all(data[split] is None or pathlib.Path(data[split]).is_file() for split in SPLITS):
        return []
    return load_dataset(data, config["seed"]).train[:OF_DATASET]


def shown(report: Report) -> str:
    """The table."""
    lines = [[PLAIN, "right", *earned(report, report.plain), ""]]
    for row in report.rows:
        counts = {"hacked": row.hacked, "outbid": row.outbid}
        said = [f"{what} {count} of {row.rewarded}" for what, count in counts.items() if count]
        lines.append([row.case, row.kind, *earned(report, row.total), ", ".join(said)])
    return table(["completion", "is", "earns", "of range", "verdict"], lines)


def earned(report: Report, total: float) -> tuple[str, str]:
    """A total, and its place in the range of totals."""
    if math.isnan(total):
        return "none", ""
    return number(total), f"{(total - report.low) / (report.high - report.low):.0%}"


def number(value: float) -> str:
    """A total."""
    return f"{value:.2f}"
