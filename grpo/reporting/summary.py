"""The end of a run in words: policies side by side, completions before and after, where it lies.

Written as summary.md, with the learning curve beside it as curve.svg.
"""

import pathlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

from grpo.reporting.evaluations import (
    Results,
    accuracy_table,
    domain_table,
    form_table,
    samples_table,
)
from grpo.reporting.grades import said_of, tables
from grpo.reporting.learning_curves import learning_curves
from grpo.reporting.reward_models import reward_models
from grpo.reporting.text import printable
from grpo.storage.journal import Journal, read_journal
from grpo.storage.whole import read_object

Config = Mapping[str, Any]
Rows = list[dict[str, Any]]
NOTHING_LOST: Mapping[str, int] = types.MappingProxyType({})
LONGEST = 400  # characters of a completion that are shown


def summary(config: Config, workdir: pathlib.Path, lost: Mapping[str, int] = NOTHING_LOST) -> str:
    """The summary; draws the curve on the way. `lost` are the rows that journals miss."""
    rows, timing = Journal(workdir / "metrics.jsonl").rows(), timing_of(workdir)
    seconds = seconds_of(timing)
    parts = [f"# {workdir.name}"]
    for name in config["pipeline"]:
        if (file := workdir / "evaluations" / f"{name}.json").exists():
            results = read_object(file)
            parts += [
                f"## {name}",
                measured_on(config, name),
                accuracy_table(results, seconds),
                *tables_of(config["stages"][name], results),
                samples(config, workdir, name),
            ]
    parts.append(reward_models(config, workdir))
    if svg := learning_curves(config, rows, timing):
        (workdir / "curve.svg").write_text(svg, "utf-8")
    places = [
        (
            "curve.svg",
            f"accuracy on {config['evaluation']['split']} problems while training, "
            "reward, length and KL",
        ),
        ("report.html", "all of it: curves, completions, times, config"),
        ("metrics.jsonl", "every update and evaluation"),
        ("rollouts.jsonl", "every completion that was sampled, and what it earned"),
        ("evaluations/", "every completion that was evaluated, and what exactly was asked"),
        ("traces/", "solutions that were written for training, and why others are not used"),
        ("rewards/", "what reward models know of prompts they have not learnt"),
        ("checkpoints/", "where each stage can be taken up"),
    ]
    lines = [f"- `{workdir / file}`: {without(what, lost.get(file.removesuffix('.jsonl'), 0))}"
             for file, what in places if (workdir / file).exists()]  # fmt: skip
    return "\n\n".join([*(part for part in parts if part), "\n".join(lines)]) + "\n"


def without(what: str, lost: int) -> str:
    """What a journal has, if rows are missing that could not be written, or were lost later."""
    return f"{what}, BUT {lost} of these rows could not be written or were lost" if lost else what


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


def timing_of(workdir: pathlib.Path) -> Rows:
    """How long each training stage took up to each of its updates, compiling included."""
    file = workdir / "timing.jsonl"
    return read_journal(file) if file.exists() else []


def seconds_of(timing: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """How long each training stage took up to its last update."""
    return {row["stage"]: row["seconds"] for row in timing}  # the last one is left


def samples(config: Config, workdir: pathlib.Path, name: str) -> str:
    """The same test problems as each policy answers them."""
    shown = config["stages"][name]["shown"]
    rows = Journal(workdir / "evaluations" / f"{name}.jsonl").rows()
    ids = list(dict.fromkeys(row["id"] for row in rows if row["sample"] == 0))[:shown]
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
