"""The process of one job: python -m grpo.sweeps.worker FOLDER, which a driver starts.

FOLDER/asked.json says what: a config, the directory of its run, and perhaps that of a finished run
of its first stages. The job's directory is then made as if the run had been interrupted after
these: their checkpoints (the same files), journals and all they have left, with a config.json of
its own; the run goes on from there, bit by bit, as from any interruption.

The process ends with its driver, which holds the other end of its input: first it is asked to stop
and save, as by SIGTERM, and if that takes too long it ends without.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from grpo.pipeline import run_config, with_presets
from grpo.runs.compile_cache import keep_programs
from grpo.storage.manifest import write_json

GRACE = 300.0  # seconds in which a run may save after its driver is gone
# What says of a run that it has ended, or how, and what it is.
OWN = ("DONE", "FAILED", "*.md", "*.svg", "*.html", "lock", "config.json", "inputs.json")
CHECKPOINTS = "checkpoints"  # whose files are written once, and then only read or deleted


def main(folder: pathlib.Path) -> int:
    """Runs a job; the exit code is that of a run."""
    threading.Thread(target=end_with_driver, daemon=True).start()
    asked = json.loads((folder / "asked.json").read_text("utf-8"))
    config, directory = tuples(asked["config"]), pathlib.Path(asked["directory"])
    if asked["parent"] and not directory.exists():
        begin(directory, pathlib.Path(asked["parent"]), config)
    await_free(directory / "lock", GRACE)
    keep_programs()
    return run_config(config, directory)


def end_with_driver() -> None:
    """Waits for the driver's end, without the lock of sys.stdin, which would abort this one's."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def begin(directory: pathlib.Path, parent: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes the directory of a run out of that of its first stages, as a whole or not at all."""
    draft = directory.with_name(f"{directory.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)

    def not_taken(path: str, names: list[str]) -> list[str]:
        is_top = pathlib.Path(path) == parent
        return [name for name in names if is_top and any(fnmatch(name, own) for own in OWN)]

    def copied(source: str, target: str) -> str:
        """A second name for a file of a checkpoint; a copy of others, which are appended to."""
        if pathlib.Path(source).relative_to(parent).parts[0] == CHECKPOINTS:
            with contextlib.suppress(OSError):  # no links here
                os.link(source, target)
                return target
        return shutil.copy2(source, target)

    shutil.copytree(parent, draft, ignore=not_taken, copy_function=copied)
    write_json(draft / "config.json", json.loads(json.dumps(with_presets(config))))
    os.rename(draft, directory)


def await_free(lock: pathlib.Path, seconds: float) -> None:
    """Waits while a run whose driver is gone still saves; run_config says so if it never ends."""
    until = time.monotonic() + seconds
    while lock.exists() and time.monotonic() < until:
        with open(lock, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(0.2)


def tuples(tree: Any) -> Any:
    """A config out of JSON, with tuples as config files have them."""
    if isinstance(tree, dict):
        return {key: tuples(value) for key, value in tree.items()}
    return tuple(map(tuples, tree)) if isinstance(tree, list) else tree


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
