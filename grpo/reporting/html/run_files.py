"""What a run's directory holds, as it is now: the run may be going on, have failed or be finished.

    finished    DONE is there
    failed      FAILED is there; its first line is the reason
    running     a process holds `lock`
    stopped     none of these: the same command goes on from the last checkpoint

What cannot be read is left out, and said. To see whether `lock` is held it is held itself for an
instant, shared; a launch at that very instant would find the directory taken.
"""

import fcntl
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.storage.journal import JournalError, read_journal

Row = dict[str, Any]


class RunFiles(NamedTuple):
    """A run, read from its directory."""

    workdir: pathlib.Path
    state: str  # finished, failed, running, stopped
    reason: str  # of a failure
    config: dict[str, Any]
    metrics: list[Row]
    timing: list[Row]
    environment: list[Row]
    data: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]  # by stage, then by policy
    rewards: dict[str, Any]  # what reward models know, by stage
    unread: list[str]  # what could not be read, in a line each

    @property
    def name(self) -> str:
        """What the directory is called, and the one it lies in."""
        return "/".join(self.workdir.absolute().parts[-2:]).strip("/")


class NoRunError(ValueError):
    """A directory that is none of a run; one line."""


def read_run(workdir: pathlib.Path) -> RunFiles:
    """Everything but the completions."""
    if not (workdir / "config.json").is_file():
        raise NoRunError(f"{workdir}: has no config.json, so it is not the directory of a run")
    unread: list[str] = []
    state, reason = state_of(workdir)

    def parsed(name: str) -> dict[str, Any]:
        return read_object(workdir / name, unread)

    config = parsed("config.json")
    order = list(config.get("pipeline") or ())

    def by_stage(folder: str) -> dict[str, Any]:
        files = [workdir / folder / f"{stage}.json" for stage in order]
        found = {file.stem: read_object(file, unread) for file in files if file.exists()}
        return {name: value for name, value in found.items() if value}

    def journal(name: str) -> list[Row]:
        return read_rows(workdir / f"{name}.jsonl", unread)

    return RunFiles(
        workdir=workdir,
        state=state,
        reason=reason,
        config=config,
        metrics=journal("metrics"),
        timing=journal("timing"),
        environment=journal("environment"),
        data=parsed("data.json") if (workdir / "data.json").exists() else {},
        evaluations=by_stage("evaluations"),
        rewards=by_stage("rewards"),
        unread=unread,
    )


def state_of(workdir: pathlib.Path) -> tuple[str, str]:
    """The state of a run, and the reason if it failed."""
    if (workdir / "DONE").exists():
        return "finished", ""
    if (workdir / "FAILED").exists():
        text = (workdir / "FAILED").read_text("utf-8", "replace")
        return "failed", text.partition("\n")[0]
    return ("running" if is_held(workdir / "lock") else "stopped"), ""


def is_held(lock: pathlib.Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def read_object(file: pathlib.Path, unread: list[str]) -> dict[str, Any]:
    """A JSON object, or an empty one and a line that says why."""
    try:
        value = json.loads(file.read_text("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError, OSError) as error:
        unread.append(f"{file.name} cannot be read ({' '.join(str(error).split())[:100]})")
        return {}
    if isinstance(value, dict):
        return value
    unread.append(f"{file.name} holds no JSON object")
    return {}


def read_rows(file: pathlib.Path, unread: list[str]) -> list[Row]:
    """The rows of a journal; none of one that is not there, or whose lines are no rows."""
    try:
        return read_journal(file) if file.exists() else []
    except (JournalError, OSError) as error:
        unread.append(str(error))
        return []


def changed_leaves(there: Any, here: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two configs differ, and what each has; None where one has none."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return [
            leaf
            for key in dict.fromkeys([*there, *here])
            for leaf in changed_leaves(
                there.get(key), here.get(key), f"{path}.{key}" if path else key
            )
        ]
    return [] if there == here else [(path, there, here)]
