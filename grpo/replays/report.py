"""What there is to say of an update that was made again: lines and tables, and a file for viewers.

The file (`--write`), a JSON object; a part that was not asked for is null, and so is a number that
is none:

    stage, step, iteration, update      update counts from 1 within its iteration
    verdict      {compared: [text], different: [text], reasons: [text]}; nothing different: equal
    metrics      the update's row of metrics.jsonl
    changed      {fields: {field: value}, metrics: {...}, parts: {part: {norm, changed_norm,
                 cosine}}, update_cosine}; part is all, "layer n", or the path of a parameter
    forecast     [{scale, learning_rate, correlation, slope, unexplained, predicted, realised}]
    by_reward    {norms: {reward: number}, to_whole: {reward: cosine}, cosines: {reward: {reward:
                 cosine}}, conflict, residual}
    rows         a completion of the batch each: id, prompt, completion
                 of grpo: round, group, gold, reward, total, finish, as in rollouts.jsonl, advantage
                 as it was learnt from, and advantages {reward: A_f} with --by_reward;
                 of sft the completion is the worked solution, of preference one of a pair, whose
                 side is chosen or rejected;
                 and of its tokens, in lists of one length: ids, tokens (texts), before (log-prob
                 before the update, in nats), change (after it - before it), changed_change (under
                 --set), predicted (--forecast)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grpo.diagnostics.by_reward import Parts
from grpo.replays.again import Update
from grpo.replays.forecast import Fit
from grpo.replays.place import Place
from grpo.replays.tokens import moved_most
from grpo.replays.verify import Verdict
from grpo.reporting.progress import table
from grpo.reporting.text import number, printable
from grpo.storage.journal import Row, plain

MOST = 12  # tokens that are shown
COMPARED = (
    "loss", "loss/policy", "loss/kl", "kl", "grad_norm", "update_norm", "learning_rate",
    "clip/low", "clip/high", "ratio/max", "entropy", "loss/preference", "loss/sft",
    "preference/accuracy", "preference/ahead", "logprob/chosen", "logprob/rejected",
)  # fmt: skip


class Other(NamedTuple):
    """The update under other fields of the stage, beside the one that the run made."""

    fields: Mapping[str, Any]
    update: Update
    parts: Mapping[str, Mapping[str, float]]  # gradients.beside
    update_cosine: float  # of the two changes of the parameters


class Found(NamedTuple):
    """Everything that was asked for."""

    place: Place
    verdict: Verdict
    update: Update
    rows: list[Row]  # tokens.rows_with
    other: Other | None
    fits: list[Fit] | None
    parts: Parts | None


def lines_of(found: Found) -> list[str]:
    """What is printed, in Markdown."""
    lines = about_verdict(found.verdict)
    columns = ["change"] + ["changed_change"] * (found.other is not None)
    columns += ["predicted"] * (found.fits is not None)
    if found.other is not None:
        lines += ["", *about_other(found.update, found.other)]
    lines += ["", *about_tokens(found.rows, columns, found.update.kind.marks)]
    if found.fits is not None:
        lines += ["", *about_fits(found.fits)]
    if found.parts is not None:
        lines += ["", *about_parts(found.parts)]
    return lines


def about_verdict(verdict: Verdict) -> list[str]:
    """Whether it is what the run did."""
    compared = ", ".join(verdict.compared)
    if not verdict.different:
        return [f"bit-equal: {compared}"]
    return [
        f"NOT bit-equal ({compared} compared):",
        *(f"  {line}" for line in verdict.different),
        "other here than in the run:",
        *(f"  {line}" for line in verdict.reasons),
    ]


def about_other(update: Update, other: Other) -> list[str]:
    """The two updates side by side."""
    fields = ", ".join(f"{field}={value}" for field, value in other.fields.items())
    here, there = update.metrics, other.update.metrics
    rows = [
        [name, shown(here.get(name)), shown(there.get(name))]
        for name in COMPARED
        if name in here or name in there
    ]
    rows.append(["cosine to the run's gradient", "1", shown(other.parts["all"]["cosine"])])
    rows.append(["cosine to the run's update", "1", shown(other.update_cosine)])
    parts = [
        [part, shown(of["norm"]), shown(of["changed_norm"]), shown(of["cosine"])]
        for part, of in other.parts.items()
    ]
    return [
        f"with {fields}:",
        "",
        table(["", "the run's", "changed"], rows),
        "",
        table(["gradient of", "the run's norm", "changed", "cosine"], parts),
    ]


def about_tokens(rows: list[Row], columns: list[str], marks: Sequence[str]) -> list[str]:
    """The tokens that moved most, with what their completions are marked by."""
    changes = [name for name in columns if name != "predicted"]
    tokens = moved_most(rows, changes, MOST)
    for token in tokens:
        row = rows[token["row"]]
        token.update({mark: row[mark] for mark in marks})
        if "predicted" in columns:
            token["predicted"] = row["predicted"][token["place"]]
    header = ["token", "completion", "place", *marks, "log-prob before", *columns]
    header = [name.replace("changed_change", "changed").replace("_", " ") for name in header]
    lines = [
        [
            f"`{printable(token['token'])}`",
            *(shown(token[name]) for name in ("row", "place", *marks, "before", *columns)),
        ]
        for token in tokens
    ]
    count = sum(len(row["tokens"]) for row in rows)
    return [f"of {count} tokens those that moved most, in nats:", "", table(header, lines)]


def about_fits(fits: Sequence[Fit]) -> list[str]:
    """Predicted beside realised changes, by learning rate."""
    lines = [[shown(value) for value in one] for one in fits]
    head = [name.replace("_", " ") for name in Fit._fields]
    return ["each token's change, predicted to first order and realised:", "", table(head, lines)]


def about_parts(parts: Parts) -> list[str]:
    """The gradient by reward function."""
    names = list(parts.norms)
    lines = [
        [
            name,
            shown(parts.norms[name]),
            shown(parts.to_whole[name]),
            *(shown(parts.cosines[name][other]) for other in names),
        ]
        for name in names
    ]
    return [
        f"the gradient by reward function: conflict {shown(parts.conflict)}, residual "
        f"{shown(parts.residual)}",
        "",
        table(["gradient of", "norm", "cosine to all", *names], lines),
    ]


def shown(value: Any) -> str:
    """A number of a table, or a word."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return number(value)


def data_of(found: Found) -> dict[str, Any]:
    """The file, by the schema of this module."""
    place, other, parts = found.place, found.other, found.parts
    rows = [dict(row) for row in found.rows]
    if parts is not None:
        for place_in_batch, row in enumerate(rows):
            row["advantages"] = {
                name: float(A_B[place_in_batch]) for name, A_B in parts.advantages.items()
            }
    return plain({
        "stage": place.stage,
        "step": place.step,
        "iteration": place.iteration,
        "update": place.update + 1,
        "verdict": found.verdict._asdict(),
        "metrics": found.update.metrics,
        "changed": other and {
            "fields": dict(other.fields),
            "metrics": other.update.metrics,
            "parts": dict(other.parts),
            "update_cosine": other.update_cosine,
        },
        "forecast": found.fits and [one._asdict() for one in found.fits],
        "by_reward": parts and {
            name: getattr(parts, name)
            for name in ("norms", "to_whole", "cosines", "conflict", "residual")
        },
        "rows": rows,
    })  # fmt: skip
