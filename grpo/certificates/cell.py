"""One variant in a process of its own: python -m grpo.certificates.cell FILE.json

The file says the config, the directory, the stage, and after which update of it the process is
asked to stop or killed. The run is that of launch.py; what the stage hands to its loop is copied on
the way: `groups/<iteration>.npz` has the rows that an iteration learnt from.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from grpo.pipeline import print_errors, run_config
from grpo.runs.compile_cache import keep_programs
from grpo.runs.stage_loop import StageLoop


class Cell(NamedTuple):
    """What a process is to do."""

    config: dict[str, Any]
    workdir: str
    stage: str
    stop_at: int | None
    kill_at: int | None


def killed() -> None:
    """Ends the process as a lack of power would: nothing is written, nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def watched(cell: Cell, kill: Callable[[], None]) -> Iterator[None]:
    """Copies the groups of the stage's iterations, and interrupts it where the cell says so."""
    patched: Any = StageLoop  # in this process alone, which does nothing else
    keep_groups, keep_update = StageLoop.keep_groups, StageLoop.keep_update
    folder = pathlib.Path(cell.workdir) / "groups"

    def copied(loop: StageLoop, groups: Any, rows: Any, **more: Any) -> None:
        keep_groups(loop, groups, rows, **more)
        if loop.stage == cell.stage:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"{loop.iteration}.npz", **groups)

    def interrupted(loop: StageLoop, *words: Any) -> None:
        keep_update(loop, *words)
        if loop.stage == cell.stage and loop.step == cell.kill_at:
            kill()
        if loop.stage == cell.stage and loop.step == cell.stop_at:
            loop.run.stop.reason = f"stopped after update {loop.step}"

    patched.keep_groups, patched.keep_update = copied, interrupted
    try:
        yield
    finally:
        patched.keep_groups, patched.keep_update = keep_groups, keep_update


def run_cell(cell: Cell, kill: Callable[[], None]) -> int:
    """Runs it here; the exit code of launch.py."""
    with watched(cell, kill):
        return run_config(cell.config, pathlib.Path(cell.workdir))


def main(file: pathlib.Path) -> int:
    """From the command line."""
    try:
        cell = Cell(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return print_errors([f"{file}: is no cell ({error})"])
    keep_programs()
    return run_cell(cell, killed)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
