"""An update of a run made again, and everything that is asked about it."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grpo.diagnostics.gradients import ALL, beside, cosine, difference, gradient_of, products
from grpo.replays.again import Scratch, Update, changed, made_again, opened_beside
from grpo.replays.by_reward import by_reward
from grpo.replays.changes import with_changes
from grpo.replays.forecast import SCALES, forecast
from grpo.replays.place import Place, nearest_checkpoint, retention
from grpo.replays.report import Found, Other
from grpo.replays.tokens import rows_with, scored
from grpo.replays.verify import verdict_on
from grpo.reporting.progress import Progress

Tree = Any


class Wanted(NamedTuple):
    """What is asked about an update."""

    changes: Mapping[str, Any]  # fields of its stage; none: no other update beside it
    forecast: bool
    by_reward: bool


def looked_into(
    place: Place, wanted: Wanted, scratch: pathlib.Path | None, progress: Progress
) -> Found:
    """The update, in a new directory below `scratch`, which is deleted at the end."""
    config = with_changes(place.config, place.stage, wanted.changes) if wanted.changes else None
    found = nearest_checkpoint(place)
    for line in found.passed:
        progress.say(f"passed over a broken checkpoint: {line}")
    progress.say(f"{place.stage}, update {place.step}, {retention(place, found)}")
    with tempfile.TemporaryDirectory(prefix="replay-", dir=scratch) as folder:
        beside_it = opened_beside(place, found, pathlib.Path(folder), progress)
        update = made_again(beside_it, keep_iteration=config is not None)
        verdict = verdict_on(beside_it, found, update)
        before_BC = scored(update, update.before.trainable)
        columns = {"before": before_BC}
        columns["change"] = scored(update, update.after.trainable) - before_BC
        fits, parts, other = None, None, None
        if wanted.forecast:
            columns["predicted"], fits = forecast(update, SCALES)
        if wanted.by_reward:
            parts = by_reward(update, lambda advantage_B: gradient_with(update, advantage_B))
        rows = rows_with(update, columns)
        if config is not None:
            other = other_update(beside_it, update, config, wanted.changes)
            changed_BC = scored(update, other.update.after.trainable) - before_BC
            for row, of_row in zip(rows, changed_BC, strict=True):
                row["changed_change"] = [float(x) for x in of_row[: len(row["ids"])]]
    return Found(place, verdict, update, rows, other, fits, parts)


def other_update(
    beside_it: Scratch, update: Update, config: Mapping[str, Any], fields: Mapping[str, Any]
) -> Other:
    """The update under another config of its stage, beside the run's own."""
    name, replaying = beside_it.place.stage, beside_it.run.config["stages"]
    unmeasured = {field: replaying[name][field] for field in ("evaluate_every", "checkpoint_every")}
    stage = {**config["stages"][name], **unmeasured}
    config = {**beside_it.run.config, "stages": {**replaying, name: stage}}
    other = changed(beside_it, update, config)
    gradients = [gradient_with(one, one.batch.advantage_B) for one in (update, other)]
    steps = [difference(one.after.trainable, one.before.trainable) for one in (update, other)]
    product, *squares = (products(*pair)[ALL] for pair in (steps, steps[:1] * 2, steps[1:] * 2))
    return Other(fields, other, beside(*gradients), cosine(product, *squares))


def gradient_with(update: Update, advantage_B: np.ndarray) -> Tree:
    """The gradient at the state before an update, had its batch these advantages."""
    return gradient_of(
        update.before.trainable,
        update.loop.start.frozen,
        update.batch._replace(advantage_B=advantage_B),
        **update.setting.programs["update"].facts,
    )
