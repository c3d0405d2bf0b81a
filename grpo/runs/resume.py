"""Where a stopped stage goes on: at its newest whole checkpoint, with its journals cut back to it.

A checkpoint has everything that the stage remembered (stage_loop.py); its host arrays are those of
the groups and, with AHEAD before their names, of a batch that was sampled ahead. What the journals
have beyond it will be computed again, bit by bit, and must not stand there twice.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.reporting.progress import Progress
from grpo.storage.checkpoints import Checkpoints
from grpo.storage.journal import Journal

Tree = Any
Arrays = Mapping[str, Any]
AHEAD = "ahead/"


class Resumed(NamedTuple):
    """What a stage remembers, as its checkpoint has it."""

    state: Tree  # TrainState
    cursor: dict[str, Any]
    groups: Arrays
    ahead: Arrays
    seconds: float
    metric: float | None


def resume(
    checkpoints: Checkpoints, stage: str, shapes: Tree, progress: Progress
) -> Resumed | None:
    """The newest whole checkpoint, or None where there is none; `shapes` are the state's."""
    newest = checkpoints.newest()
    for line in checkpoints.rejected:
        progress.say(f"passed over a broken checkpoint, now in quarantine: {line}")
    if newest is None:
        return None
    state, extra, pending = checkpoints.restore(newest, shapes)
    progress.say(f"{stage} goes on from update {newest}")
    return Resumed(
        state, extra["cursor"], *parted(pending or {}), extra["seconds"], extra["metric"]
    )


def together(groups: Arrays, ahead: Arrays) -> dict[str, Any]:
    """The host arrays of a checkpoint."""
    return {**groups, **{AHEAD + name: x for name, x in ahead.items()}}


def parted(pending: Arrays) -> tuple[Arrays, Arrays]:
    """The groups and the batch that waits, out of `together`."""
    ahead = {n.removeprefix(AHEAD): x for n, x in pending.items() if n.startswith(AHEAD)}
    return {n: x for n, x in pending.items() if not n.startswith(AHEAD)}, ahead


def cut_back(
    stage: str,
    step: int,
    cursor: Mapping[str, Any],
    has_groups: bool,
    *,
    metrics: Journal,
    timing: Journal,
    rollouts: Journal,
) -> None:
    """Drops the rows of a stage that came after the checkpoint with this step and cursor."""

    def is_before(row: dict[str, Any]) -> bool:
        if row["stage"] != stage:
            return True
        if "eval/problems" in row:
            return row["iteration"] <= cursor["evaluated"]
        return row["step"] <= step

    metrics.keep(is_before)
    timing.keep(is_before)
    # Sampled at the cursor's iteration: kept if the checkpoint holds them as well.
    last = cursor["iteration"] - (not has_groups)
    rollouts.keep(lambda row: row["stage"] != stage or row["iteration"] <= last)
