"""A run: the stages of a config's pipeline, one after the other, in a directory.

The same call goes on where the last one ended. At the end there is DONE beside summary.md and
report.html, or FAILED with the reason and the traceback; while it goes, `lock` is held, so that no
second run writes beside it.

    exit code   0   finished          75   asked to stop, and saved: start it again
                1   failed             2   the config or its files are wrong; nothing was computed
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from grpo.algorithms.decoding import resolve_decoding
from grpo.algorithms.presets import resolve
from grpo.checks.problems import problems
from grpo.reporting.failure import failure, without_own_secrets
from grpo.reporting.html.report import write_report
from grpo.reporting.progress import Progress
from grpo.reporting.summary import summary
from grpo.runs.environment import changes, environment
from grpo.runs.inputs import pin_inputs
from grpo.runs.lock import LockLostError, locked
from grpo.runs.room import require_room
from grpo.runs.run import Run, RunError, Stop, StoppedError
from grpo.runs.setup import set_up
from grpo.runs.time_budget import TimeBudget
from grpo.runs.vouching import look_at_journals
from grpo.stages import distill, evaluate, grade, grpo, pairs, preference, reward_model, sft, traces
from grpo.storage.journal import JournalError, read_journal
from grpo.storage.manifest import write_json

# By kind: FIELDS, check, build, run (grpo/stages/__init__.py).
STAGES: dict[str, Any] = {
    "sft": sft,
    "traces": traces,
    "pairs": pairs,
    "preference": preference,
    "reward_model": reward_model,
    "distill": distill,
    "grpo": grpo,
    "evaluate": evaluate,
    "grade": grade,
}
FINISHED, FAILED, WRONG, SAVED = 0, 1, 2, 75
# What may differ between two launches of a run: it changes nothing that was computed.
FREE = ("log", "checkpoint", "time_budget")


def run_config(config: Mapping[str, Any], workdir: pathlib.Path) -> int:
    """Runs a config to its end, or on to where it is asked to stop; returns the exit code."""
    if wrong := problems(config, STAGES):
        return print_errors(wrong)
    config = with_presets(config)
    budget = TimeBudget(config["time_budget"]) if config["time_budget"] else None
    progress, stop = Progress(sys.stderr, every_s=config["log"]["every_s"]), Stop(budget)
    try:
        with locked(workdir) as stop.hold, signals(stop):
            return run_stages(config, workdir, progress, stop)
    except RunError as error:
        return print_errors([str(error)])
    except LockLostError as error:
        progress.close()
        print_errors([str(error)])
        return FAILED


def with_presets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what its presets say filled in, as config.json shows it."""
    stages = {}
    for name, stage in config["stages"].items():
        stages[name] = stage = dict(stage)
        if "loss" in stage:
            stage["loss"] = resolve(stage["loss"])
        if "preset" in stage.get("sampling", ()):
            stage["sampling"] = resolve_decoding(stage["sampling"])
    return {**config, "stages": stages}


def run_stages(
    config: Mapping[str, Any], workdir: pathlib.Path, progress: Progress, stop: Stop
) -> int:
    """The run itself, in a directory that is its own."""
    files = [workdir / name for name in ("config.json", "tokenizer.model")]
    made_here = [file for file in files if not file.exists()]
    with written(workdir):
        pin_config(config, workdir)
    if (workdir / "DONE").exists():
        print(summary_of(config, workdir))
        print(f"This run is finished. Another one needs another --workdir than {workdir}.")
        return FINISHED
    began = time.monotonic()
    try:
        run, policies = set_up(config, workdir, progress, stop)
    except (ValueError, OSError) as error:  # of data, tokenizers and checkpoints; all one line
        for file in made_here:  # a second try may say something else
            file.unlink(missing_ok=True)
        return print_errors([" ".join(str(error).split())])
    except StoppedError as error:
        progress.say(f"{error}: nothing was computed yet; the same command begins again")
        return SAVED
    try:
        with written(workdir):
            pin_data(run)
            pin_inputs(run)
            require_room(run)
            record_environment(run)
            (workdir / "FAILED").unlink(missing_ok=True)
        look_at_journals(run)
        for name in config["pipeline"]:
            STAGES[config["stages"][name]["kind"]].run(run, name, policies)
            stop.check()
        text = summary(config, workdir, run.lost())
        (workdir / "summary.md").write_text(text, "utf-8")
        write_json(workdir / "DONE", {"seconds": round(time.monotonic() - began, 1)})
    except StoppedError as error:
        progress.say(f"{error}: everything is saved; the same command goes on from here")
        return SAVED
    except (LockLostError, RunError):  # the directory is another run's, or nothing was computed
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error itself says more than a full disk
            (workdir / "FAILED").write_text(failure(error, os.environ), "utf-8")
        write_report(workdir, progress.say)
        progress.close()
        raise
    write_report(workdir, progress.say)
    print(text)
    return FINISHED


def print_errors(lines: list[str]) -> int:
    """Says what is wrong, a line each, and that nothing was computed."""
    for line in lines:
        print(f"error: {without_own_secrets(line)}", file=sys.stderr)
    return WRONG


@contextlib.contextmanager
def written(workdir: pathlib.Path) -> Iterator[None]:
    """What a launch writes before it computes: a disk that takes none of it is one line."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"--workdir={workdir}: cannot be written or read ({reason})") from None


def summary_of(config: Mapping[str, Any], workdir: pathlib.Path) -> str:
    """The summary of a finished run, made again if somebody took it away."""
    file = workdir / "summary.md"
    try:
        if not file.exists():
            file.write_text(summary(config, workdir, {}), "utf-8")
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        return f"{file}: is not there, and cannot be made again ({' '.join(str(error).split())})"


def pin_config(config: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Writes the config down, or makes sure that it is the one that the directory began with."""
    file, here = workdir / "config.json", json.loads(json.dumps(config))
    if not file.exists():
        write_json(file, here)
        return
    try:
        there = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError):
        raise RunError(f"--workdir={workdir}: {file} cannot be read; name another one") from None
    if different := list(differences(there, here)):
        raise RunError(
            f"--workdir={workdir} began with another config: {'; '.join(different[:5])}: "
            "name another directory, or take the difference back"
        )
    write_json(file, here)  # what is free to differ


def differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """The fields in which two configs differ, but for those that are free to."""
    if path in FREE:
        return
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            below = f"{path}.{key}" if path else key
            yield from differences(there.get(key), here.get(key), below)
    elif there != here:
        yield f"{path} was {there!r}, is {here!r}"


@contextlib.contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks the run to stop and save, a second one ends it at once."""

    def ask(number: int, frame: Any) -> None:
        if stop.reason:
            raise KeyboardInterrupt
        stop.reason = f"stopped by {signal.Signals(number).name}"
        print(
            f"\n{stop.reason}: what is being computed is finished and saved, and the run ends; "
            "a second signal ends it at once",
            file=sys.stderr,
        )

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def pin_data(run: Run) -> None:
    """Writes down what became of the data, or makes sure that it is what the run began with."""
    file, here = (
        run.workdir / "data.json",
        {name: json.loads(json.dumps(dataset.report)) for name, dataset in run.datasets.items()},
    )
    try:
        there = json.loads(file.read_text("utf-8")) if file.exists() else here
    except (ValueError, RecursionError):
        raise RunError(
            f"--workdir={run.workdir}: {file} cannot be read; delete it to go on with the data as "
            "they are now"
        ) from None
    if there != here:
        raise RunError(
            f"--workdir={run.workdir}: the data are no longer those in its data.json: name another "
            "directory, or bring the files back"
        )
    write_json(file, here)


def record_environment(run: Run) -> None:
    """Adds a row on this launch; says so if it is another environment than the last one."""
    journal, here = run.journal("environment"), environment(run)
    try:
        rows = read_journal(journal.path) if journal.path.exists() else []
    except JournalError as error:
        run.progress.say(f"what earlier launches ran on is not known: {error}")
        rows = []
    # A launch that was killed may have left no row.
    if rows and (changed := changes(rows[-1], here)):
        run.progress.say(f"other than at the last launch, so bits may differ: {', '.join(changed)}")
    journal.write(here)
