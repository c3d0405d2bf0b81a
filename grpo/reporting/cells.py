"""The cells of a sweep, as their runs have left them: one metric of one policy, and its problems.

cells.jsonl of a sweep's directory has a row per cell: ablation ("" for the base), seed, directory
(of the run, below the sweep's), state, reason. A cell that is not done, or cannot be read, has no
value, and a reason in a line: nothing stands for it.

From a run are taken config.json (which evaluation: the last stage of kind evaluate; which policy:
the last GRPO stage that it has measured, or else the last policy), evaluations/<stage>.json (the
metric) and <stage>.jsonl (what each problem adds to it). Metrics with problems are

    accuracy/<reading>, length/mean, truncated      of the greedy completion
    sampled/<one of these>, mean@n                  the mean over a problem's samples

of others, such as pass@k, only seeds can be compared. A problem is an id with its question: worlds
that are made here use the same ids for other questions.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.reporting.evaluations import last_policy
from grpo.storage.journal import Row, read_journal

BASE, DONE = "base", "done"
SAMPLED = "sampled/"
NEEDED = {"ablation": str, "seed": int, "directory": str, "state": str}
Problem = tuple[str, str]  # id and question


class CellError(ValueError):
    """What is wrong, in one line that names the fix."""


class Asked(NamedTuple):
    """What is compared; None is what each run's config says, as above."""

    metric: str
    policy: str | None
    stage: str | None


class Cell(NamedTuple):
    """An ablation on a seed."""

    ablation: str
    seed: int
    directory: pathlib.Path
    value: float | None  # None: it is not there, for this reason
    reason: str
    metric: str
    policy: str
    stage: str
    problems: dict[Problem, float]  # empty where the metric has none


def rows_of(sweep: pathlib.Path) -> list[Row]:
    """The last row of each cell, in the order of the first ones."""
    file, found = sweep / "cells.jsonl", {}
    try:
        rows = read_journal(file)
    except OSError:
        raise CellError(f"{file} is not there: this is no directory of a sweep") from None
    for number, row in enumerate(rows, start=1):
        for field, kind in NEEDED.items():
            if not isinstance(row.get(field), kind):
                raise CellError(f"{file}:line {number}: {field} is to be a {kind.__name__}")
        found[row["ablation"] or BASE, row["seed"]] = row
    if not found:
        raise CellError(f"{file} has no cell")
    return list(found.values())


def baseline_of(sweep: pathlib.Path, rows: Sequence[Row]) -> str:
    """The ablation that the sweep compares with: as it says, or the base, or its first one."""
    file = sweep / "sweep.json"
    said = json.loads(file.read_text("utf-8")).get("baseline") if file.exists() else None
    names = [str(row["ablation"] or BASE) for row in rows]
    return next((name for name in (said, BASE) if name in names), names[0])


def read_cells(rows: Iterable[Mapping[str, Any]], sweep: pathlib.Path, asked: Asked) -> list[Cell]:
    """Every cell; where no run has the metric of greedy completions, that of its samples."""
    rows = list(rows)
    cells = [read_cell(row, sweep, asked) for row in rows]
    if all(cell.value is None for cell in cells) and not asked.metric.startswith(SAMPLED):
        sampled = asked._replace(metric=SAMPLED + asked.metric)
        again = [read_cell(row, sweep, sampled) for row in rows]
        if any(cell.value is not None for cell in again):
            return again
    return cells


def read_cell(row: Mapping[str, Any], sweep: pathlib.Path, asked: Asked) -> Cell:
    """A cell, with the reason where there is nothing to read."""
    run = sweep / row["directory"]
    cell = Cell(row["ablation"] or BASE, row["seed"], run, None, "", asked.metric, "", "", {})
    if row["state"] != DONE:
        reason = row.get("reason")
        return cell._replace(reason=f"{row['state']}: {reason}" if reason else row["state"])
    try:
        return measured(cell, asked)
    except CellError as error:
        return cell._replace(reason=str(error))
    except OSError as error:
        return cell._replace(reason=f"{error.filename}: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return cell._replace(reason=f"its evaluation cannot be read ({type(error).__name__})")


def measured(cell: Cell, asked: Asked) -> Cell:
    """A cell with what its run has measured."""
    config = json.loads((cell.directory / "config.json").read_text("utf-8"))
    stage = asked.stage or evaluation_of(config)
    file = cell.directory / "evaluations" / f"{stage}.json"
    results = json.loads(file.read_text("utf-8"))
    if not isinstance(results, dict) or not results:
        raise CellError(f"{stage}.json has no policy")
    policy = asked.policy or last_policy(config["stages"], list(results))
    if policy not in results:
        raise CellError(f"{stage} did not measure {policy}: it has {', '.join(results)}")
    value = results[policy].get(asked.metric)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise CellError(f"{stage} has no {asked.metric} of {policy}")
    rows = [row for row in read_journal(file.with_suffix(".jsonl")) if row["policy"] == policy]
    is_greedy = config["stages"][stage].get("greedy", True)  # graded ones are one of a problem
    problems = by_problem(rows, asked.metric, is_greedy=is_greedy)
    if problems and not math.isclose(mean(problems), value, rel_tol=1e-6, abs_tol=1e-9):
        raise CellError(f"{stage}.jsonl says {asked.metric}={mean(problems):.4f}, not {value:.4f}")
    return cell._replace(value=float(value), policy=policy, stage=stage, problems=problems)


def evaluation_of(config: Mapping[str, Any]) -> str:
    """The last evaluation of a pipeline."""
    stages = config["stages"]
    names = [name for name in config["pipeline"] if stages[name]["kind"] == "evaluate"]
    if not names:
        raise CellError("its pipeline has no stage of kind evaluate")
    return names[-1]


def by_problem(rows: Sequence[Row], metric: str, *, is_greedy: bool) -> dict[Problem, float]:
    """What each problem adds to a metric, of a policy's rows; {} if it has no such parts.

    Of a stage that asks greedily the first row of a problem is that completion.
    """
    name = metric.removeprefix(SAMPLED)
    is_sampled = name != metric or name.startswith("mean@")
    if name.startswith("mean@"):
        name = "accuracy/lenient"
    if name not in ("length/mean", "truncated") and not name.startswith("accuracy/"):
        return {}
    found: dict[Problem, list[float]] = {}
    for row in rows:
        found.setdefault((row["id"], row["question"]), []).append(of_completion(row, name))
    if is_greedy:
        found = {key: of[1:] if is_sampled else of[:1] for key, of in found.items()}
    return {key: sum(of) / len(of) for key, of in found.items() if of}


def of_completion(row: Row, name: str) -> float:
    """What a completion adds."""
    if name == "length/mean":
        return float(row["tokens"])
    if name == "truncated":
        return float(row["finish"] == "length")
    return float(row["right"][name.removeprefix("accuracy/")])


def mean(problems: Mapping[Problem, float]) -> float:
    """The mean over problems."""
    return sum(problems.values()) / len(problems)
