"""The end of a run in words: policies side by side, completions before and after, where it lies.

Written as summary.md, with the learning curve beside it as curve.svg.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo.reporting.curve import Series, curve_svg
from grpo.reporting.progress import printable, table
from grpo.reporting.reward_models import reward_models
from grpo.reporting.text import duration
from grpo.storage.journal import read_journal

Config = Mapping[str, Any]
Rows = list[dict[str, Any]]
LONGEST = 400  # characters of a completion that are shown


def summary(config: Config, workdir: pathlib.Path) -> str:
    """The summary; draws the curve on the way."""
    rows = read_journal(workdir / "metrics.jsonl")
    seconds = seconds_of(workdir)
    parts = [f"# {workdir.name}"]
    for name in config["pipeline"]:
        if (workdir / "evaluations" / f"{name}.json").exists():
            parts += [
                f"## {name}",
                measured_on(config, name),
                accuracy_table(config, workdir, name, seconds),
                samples(config, workdir, name),
            ]
    parts.append(reward_models(config, workdir))
    curve = workdir / "curve.svg"
    if series := curves(config, rows):
        title = f"Right answers to {config['evaluation']['split']} problems while training"
        svg = curve_svg(series, title=title, x_label="update", y_label="greedy, strict form",
                        percent=True)  # fmt: skip
        curve.write_text(svg, "utf-8")
    places = [
        ("curve.svg", f"accuracy on {config['evaluation']['split']} problems while training"),
        ("metrics.jsonl", "every update and evaluation"),
        ("rollouts.jsonl", "every completion that was sampled, and what it earned"),
        ("evaluations/", "every completion that was evaluated"),
        ("rewards/", "what reward models know of prompts they have not learnt"),
        ("checkpoints/", "where each stage can be taken up"),
    ]
    lines = [f"- `{workdir / file}`: {what}" for file, what in places
             if (workdir / file).exists()]  # fmt: skip
    return "\n\n".join([*(part for part in parts if part), "\n".join(lines)]) + "\n"


def measured_on(config: Config, name: str) -> str:
    """What an evaluation stage asked, where that is not the test of `data`, without shots."""
    stage = config["stages"][name]
    data = config["datasets"][stage["data"]] if stage["data"] else config["data"]
    where, shots = (stage["data"] or "data", stage["split"]), data["shots"]
    if where == ("data", "test") and not shots:
        return ""
    before = f", with {shots} worked examples before each question" if shots else ""
    return f"On the {where[1]} split of {where[0]}{before}."


def seconds_of(workdir: pathlib.Path) -> dict[str, float]:
    """How long each training stage took up to its last update, compiling included."""
    file = workdir / "timing.jsonl"
    return {row["stage"]: row["seconds"] for row in read_journal(file)} if file.exists() else {}


def share(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.1f} %"


def accuracy_table(
    config: Config, workdir: pathlib.Path, name: str, seconds: dict[str, float]
) -> str:
    """What an evaluation stage found, a line per policy."""
    results = json.loads((workdir / "evaluations" / f"{name}.json").read_text("utf-8"))
    ks = [f"{kind}@{k}" for k in config["stages"][name]["ks"] for kind in ("pass", "maj")]
    ks = [k for k in ks if any(k in found for found in results.values())]
    header = [
        "after",
        "right",
        "95 % interval",
        "lenient",
        "demo",
        "in form",
        "tokens",
        *ks,
        "time",
    ]
    lines = []
    for policy, found in results.items():
        interval = ""
        if "accuracy/strict" in found:
            low, high = found["accuracy/strict/low"], found["accuracy/strict/high"]
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
        lines.append([
            policy,
            share(found.get("accuracy/strict", found.get("sampled/accuracy/strict"))),
            interval,
            share(found.get("accuracy/lenient")),
            share(found.get("accuracy/demo")),
            share(found.get("format/strict")),
            f"{found.get('length/mean', found.get('sampled/length/mean', math.nan)):.1f}",
            *(share(found.get(k)) for k in ks),
            duration(seconds[policy]) if policy in seconds else "",
        ])  # fmt: skip
    return table(header, lines)


def samples(config: Config, workdir: pathlib.Path, name: str) -> str:
    """The same test problems as each policy answers them."""
    shown = config["stages"][name]["shown"]
    rows = read_journal(workdir / "evaluations" / f"{name}.jsonl")
    ids = list(dict.fromkeys(row["id"] for row in rows))[:shown]
    blocks = []
    for problem in ids:
        answers = [row for row in rows if row["id"] == problem and row["sample"] == 0]
        first = {row["policy"]: row for row in reversed(answers)}
        lines = [f"{printable(answers[0]['question'])} ({printable(answers[0]['gold'])})"]
        for policy in config["stages"][name]["policies"]:
            row = first[policy]
            verdict = "right" if row["right"]["strict"] else "wrong"
            text = printable(row["completion"][:LONGEST])
            lines.append(f"    {policy}, {verdict}: {text}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def curves(config: Config, rows: Rows) -> list[Series]:
    """The running evaluations of each stage, one behind the other where they follow."""
    found, offset = [], {"base": 0}
    for name in config["pipeline"]:
        if "start" not in config["stages"][name]:  # it trains nothing
            continue
        own = [row for row in rows if row["stage"] == name and "eval/accuracy/strict" in row]
        before = config["stages"][name]["start"] or [*offset][-1]
        steps = [offset[before] + row["step"] for row in own]
        done = [row["step"] for row in rows if row["stage"] == name]
        offset[name] = offset[before] + max(done, default=0)
        if own:
            y, low, high = (
                [row[f"eval/accuracy/strict{end}"] for row in own] for end in ("", "/low", "/high")
            )
            found.append(Series(name, steps, y, low, high))
    return found
