"""An update of a run made again, and everything that is asked about it."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.diagnostics.gradients import ALL, beside, cosine, difference, gradient_of, products
from grpo.replays.again import Update, changed, made_again
from grpo.replays.by_reward import by_reward
from grpo.replays.changes import with_changes
from grpo.replays.forecast import SCALES, forecast
from grpo.replays.place import Place, ReplayError, nearest_checkpoint, retention
from grpo.replays.report import Found, Other
from grpo.replays.scratch import Scratch, opened_beside
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
    if wanted.by_reward and not place.kind.samples:
        raise ReplayError(f"--by_reward: {place.stage} learns from no rewards: leave it out")
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
            parts = by_reward(update, lambda A_B: gradient_with(update, advantage_B=A_B))
        if config is not None:
            other = other_update(beside_it, update, config, wanted.changes)
            columns["changed_change"] = scored(update, other.update.after.trainable) - before_BC
        rows = rows_with(update, columns)
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
    gradients = [gradient_with(one) for one in (update, other)]
    steps = [difference(one.after.trainable, one.before.trainable) for one in (update, other)]
    product, *squares = (products(*pair)[ALL] for pair in (steps, steps[:1] * 2, steps[1:] * 2))
    return Other(fields, other, beside(*gradients), cosine(product, *squares))


def gradient_with(update: Update, **fields: Any) -> Tree:
    """The gradient at the state before an update, had its batch these values of some fields."""
    return gradient_of(
        update.before.trainable,
        update.loop.start.frozen,
        update.batch._replace(**fields),
        **update.setting.programs["update"].facts,
    )
