"""Whether what was made again is what the run did: bytes of its journals, bits of its checkpoints.

    metrics.jsonl     the rows of every update since the checkpoint, the one in question included
    rollouts.jsonl    the rows of every iteration since then, of stages that sample
    other files       of the stage, where it was begun anew: what the reference said of pairs
    a checkpoint      of the very update, where there is one: its state, array by array

Not compared: running evaluations, which are not made again; and of judges the share of cached
replies, as all replies come out of the recording here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from grpo.replays.again import Update
from grpo.replays.place import Nearest, Place, checkpoints_of_run, rows_of
from grpo.replays.scratch import Scratch
from grpo.runs.environment import changes, environment
from grpo.storage.journal import Row, encode, read_journal
from grpo.storage.snapshot import snapshot_fault
from grpo.training.train_step import TrainState

CACHED = re.compile(r"reward/\w+/cached")
SHOWN = 5  # differences


class Verdict(NamedTuple):
    """What was compared, and what differs; nothing: all is equal."""

    compared: list[str]
    different: list[str]
    reasons: list[str]  # that results may differ, if there are any


def verdict_on(scratch: Scratch, found: Nearest, update: Update) -> Verdict:
    """On an update that was just made again, and on those made on the way to it."""
    place, compared, different = scratch.place, [], []
    chosen = {
        "metrics": lambda row: found.step < row["step"] <= place.step and "loss" in row,
    }
    if place.kind.samples:
        chosen["rollouts"] = lambda row: begun(found, place) <= row["iteration"] <= place.iteration
    for journal, is_made in chosen.items():
        theirs, ours = (
            [row for row in rows_of(workdir, journal) if row["stage"] == place.stage]
            for workdir in (place.workdir, scratch.run.workdir)
        )
        theirs, ours = list(filter(is_made, theirs)), list(filter(is_made, ours))
        compared.append(f"{len(ours)} row{'s' * (len(ours) != 1)} of {journal}.jsonl")
        different += [f"{journal}.jsonl: {line}" for line in unlike(theirs, ours)]
    for file in place.files:
        there, here = place.workdir / file, scratch.run.workdir / file
        if found.path is None and there.exists() and here.exists():
            theirs, ours = read_journal(there), read_journal(here)
            compared.append(f"{len(ours)} rows of {file}")
            different += [f"{file}: {line}" for line in unlike(theirs, ours)]
    checkpoints = checkpoints_of_run(place)
    path = checkpoints.path(place.step)
    if place.step in checkpoints.steps() and not snapshot_fault(path):
        state = checkpoints.restore(place.step, update.after).state
        compared.append(f"{len(jax.tree.leaves(state))} arrays of checkpoint {place.step}")
        different += [f"checkpoint {place.step}: {name}" for name in unlike_arrays(state, update)]
    return Verdict(compared, different, why(scratch) if different else [])


def begun(found: Nearest, place: Place) -> int:
    """The first iteration that was sampled again: a checkpoint amid one has its completions."""
    return -(-found.step // place.updates)


def unlike(theirs: Sequence[Row], ours: Sequence[Row]) -> Iterator[str]:
    """How rows differ, as far as a few of them show it."""
    if len(theirs) != len(ours):
        yield f"{len(theirs)} rows in the run, {len(ours)} here"
    told = 0
    for place, (there, here) in enumerate(zip(theirs, ours, strict=False)):
        there, here = without_cached(there), without_cached(here)
        if encode(there) != encode(here):
            told += 1
            if told <= SHOWN:
                where = f"update {there['step']}, " if "step" in there else ""
                yield f"{where}row {place + 1}: {'; '.join(fields(there, here))}"
    if told > SHOWN:
        yield f"and {told - SHOWN} more rows"


def fields(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The fields in which two rows differ."""
    found = [
        f"{key} was {said(there.get(key))}, is {said(here.get(key))}"
        for key in dict.fromkeys([*there, *here])
        if json.dumps(there.get(key)) != json.dumps(here.get(key))
    ]
    return found[:SHOWN] + [f"and {len(found) - SHOWN} more fields"] * (len(found) > SHOWN)


def said(value: Any) -> str:
    """A value of a row, cut."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def without_cached(row: Row) -> Row:
    """A row without what says where a reply came from."""
    return {key: value for key, value in row.items() if not CACHED.fullmatch(key)}


def unlike_arrays(state: TrainState, update: Update) -> list[str]:
    """The leaves of a state that are not those of the state after an update, bit by bit."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    pairs = zip(leaves, jax.tree.leaves(update.after), strict=True)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, there), here in pairs
        if np.asarray(there).tobytes() != np.asarray(here).tobytes()
    ]


def why(scratch: Scratch) -> list[str]:
    """What is other here than where the run was last launched."""
    rows = rows_of(scratch.place.workdir, "environment")
    if not rows:
        return ["what the run ran on is not known: it has no environment.jsonl"]
    return changes(rows[-1], environment(scratch.run)) or [
        "nothing that environment.jsonl knows of: versions, processor, threads and commit are equal"
    ]
