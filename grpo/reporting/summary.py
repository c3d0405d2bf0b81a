"""The end of a run in words: policies side by side, completions before and after, where it lies.

Written as summary.md, with the learning curve beside it as curve.svg.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo.reporting.curve import Series, curve_svg
from grpo.reporting.evaluations import (
    Results,
    accuracy_table,
    domain_table,
    form_table,
    samples_table,
)
from grpo.reporting.grades import said_of, tables
from grpo.reporting.reward_models import reward_models
from grpo.reporting.text import printable
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
        if (file := workdir / "evaluations" / f"{name}.json").exists():
            results = json.loads(file.read_text("utf-8"))
            parts += [
                f"## {name}",
                measured_on(config, name),
                accuracy_table(results, seconds),
                *tables_of(config["stages"][name], results),
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
        ("evaluations/", "every completion that was evaluated, and what exactly was asked"),
        ("traces/", "solutions that were written for training, and why others are not used"),
        ("rewards/", "what reward models know of prompts they have not learnt"),
        ("checkpoints/", "where each stage can be taken up"),
    ]
    lines = [f"- `{workdir / file}`: {what}" for file, what in places
             if (workdir / file).exists()]  # fmt: skip
    return "\n\n".join([*(part for part in parts if part), "\n".join(lines)]) + "\n"


def tables_of(stage: Config, results: Results) -> list[str]:
    """What there is to say beside how many answers are right."""
    if stage["kind"] == "grade":
        return tables(results, stage)
    return [form_table(results), samples_table(results), domain_table(results)]


def measured_on(config: Config, name: str) -> str:
    """What an evaluation stage asked, where that is not the test of `data`, without shots."""
    stage = config["stages"][name]
    data = config["datasets"][stage["data"]] if stage["data"] else config["data"]
    where, shots = (stage["data"] or "data", stage["split"]), data.get("shots", 0)
    if where == ("data", "test") and not shots:
        return ""
    before = f", with {shots} worked examples before each question" if shots else ""
    return f"On the {where[1]} split of {where[0]}{before}."


def seconds_of(workdir: pathlib.Path) -> dict[str, float]:
    """How long each training stage took up to its last update, compiling included."""
    file = workdir / "timing.jsonl"
    return {row["stage"]: row["seconds"] for row in read_journal(file)} if file.exists() else {}


def samples(config: Config, workdir: pathlib.Path, name: str) -> str:
    """The same test problems as each policy answers them."""
    shown = config["stages"][name]["shown"]
    rows = read_journal(workdir / "evaluations" / f"{name}.jsonl")
    ids = list(dict.fromkeys(row["id"] for row in rows))[:shown]
    blocks, said = [], said_of(workdir, name)
    for problem in ids:
        answers = [row for row in rows if row["id"] == problem and row["sample"] == 0]
        first: dict[str, Any] = {}
        for row in answers:  # a greedy completion stands before the samples
            first.setdefault(row["policy"], row)
        lines = [f"{printable(answers[0]['question'])} ({printable(answers[0]['gold'])})"]
        for policy, row in first.items():
            verdict = "right" if row["right"]["strict"] else "wrong"
            text = printable(row["completion"][:LONGEST])
            grades = said.get((policy, problem), "")
            lines.append(f"    {policy}, {verdict}{grades}: {text}")
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
