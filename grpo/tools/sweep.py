"""Runs a sweep: python -m grpo.tools.sweep FILE [--workdir=DIRECTORY] [--help]

    python -m grpo.tools.sweep configs/sweeps/presets.py --workdir=runs/sweeps/presets --workers=2

FILE says base, ablations and seeds (configs/sweeps/). Each cell is a run in a process of its own;
the same command goes on where it was interrupted, does nothing where all is done, and may be given
several times at once, on machines that share the directory. Machines that share none each take
--shard=i/n; their directories are then put together, and the command given once more. --submit has
submitit run the n shards, as processes here (local) or as an array of Slurm.

    exit code   0   all cells of this shard are done     1   some have failed
                2   a wrong file or flag; nothing ran    75  stopped: the same command goes on
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from grpo.checks.arguments import end
from grpo.reporting.cells import CellError
from grpo.reporting.comparison_files import AS_USUAL, compared, write_comparison
from grpo.reporting.comparison_tables import markdown
from grpo.reporting.html.report import FILE
from grpo.storage.journal import JournalError
from grpo.storage.whole import put
from grpo.sweeps.cells import Cell, SweepError, cells_of, sweep_of
from grpo.sweeps.display import Display
from grpo.sweeps.driver import EVERYTHING, Driver, Settings, code_of
from grpo.sweeps.jobs import Job, folder_of, run_of, standing
from grpo.sweeps.records import strangers, summary, write_cells, write_sweep
from grpo.sweeps.sharing import jobs_of
from grpo.sweeps.slurm import slurm_script
from grpo.sweeps.submitit_jobs import SubmitError, submit, wait
from grpo.tools.sweep_flags import parser, wrong_in

PASSED = ("workers", "cell_seconds", "stale_seconds")  # on to the tasks of an array job
Item = TypeVar("Item")


def part_of(items: Sequence[Item], shard: tuple[int, int]) -> Sequence[Item]:
    """A contiguous part: cells of one seed, which may share work, stay together."""
    i, n = shard
    return items[len(items) * i // n : len(items) * (i + 1) // n]


def command_of(workdir: pathlib.Path, jobs: dict[str, Job], job: Job) -> list[str]:
    """What starts a job, and writes down what it is to do."""
    folder, parent = folder_of(workdir, job), jobs[job.parent] if job.parent else None
    asked = {
        "config": job.config,
        "directory": str(run_of(workdir, job)),
        "parent": str(run_of(workdir, parent)) if parent else None,
    }
    put(folder / "asked.json", json.dumps(asked, indent=1).encode())
    return [sys.executable, "-m", "grpo.sweeps.worker", str(folder)]


def about(workdir: pathlib.Path, cells: Sequence[Cell], jobs: dict[str, Job]) -> list[str]:
    """What would be run, a line each."""
    shared = {cell.name: jobs[cell.name].parent for cell in cells}
    lines = [f"{len(cells)} cells in {workdir}, {len(set(shared.values()) - {None})} shared runs"]
    for cell in cells:
        changed = ", ".join(f"{path}={value!r}" for path, value in cell.changed.items())
        begins = f" after {shared[cell.name]}" if shared[cell.name] else ""
        lines.append(f"{cell.name}{begins}: {changed or 'as the base'}")
    return lines


def words_of(flags: argparse.Namespace) -> list[str]:
    """What Python is started with for what these flags ask for, but for its shard."""
    words = ["-m", "grpo.tools.sweep", flags.file, f"--workdir={flags.workdir}"]
    words += [f"--{name}={getattr(flags, name)}" for name in PASSED]
    return words + (["--retry_failed"] if flags.retry_failed else [])


def script_of(flags: argparse.Namespace, tasks: int) -> str:
    """The array job that runs what these flags ask for."""
    name, root = pathlib.Path(flags.file).stem, str(pathlib.Path.cwd())
    return slurm_script(words_of(flags), name=name, root=root, tasks=tasks)


def submitted(flags: argparse.Namespace, tasks: int) -> Sequence[Any]:
    """The jobs of submitit that run what these flags ask for."""
    folder = flags.workdir / "submitit"
    options = {"name": pathlib.Path(flags.file).stem, **dict(flags.submit_option)}
    words = [sys.executable, *words_of(flags)]
    shards = [[*words, f"--shard={i}/{tasks}"] for i in range(tasks)]
    jobs = submit(flags.submit, folder, options, shards)
    said = f"{', '.join(job.job_id for job in jobs)}: their logs are {folder}/*_log.err"
    print(f"submitted as {said}", flush=True)
    return jobs


def sweep(flags: argparse.Namespace) -> int:
    """Runs it, or only says what would be."""
    asked, workdir = sweep_of(flags.file), flags.workdir
    cells = cells_of(asked)
    if flags.emit:
        print(script_of(flags, flags.tasks or len(cells)), end="")
        return 0
    jobs = jobs_of(cells)
    own = part_of(cells, flags.shard)
    if flags.dry_run:
        print("\n".join(about(workdir, own, jobs)))
        return 0
    changed = functools.partial(write_cells, workdir, cells, jobs)
    if flags.submit:
        handed = submitted(flags, flags.tasks or len(cells))
        if flags.submit != "local":
            return EVERYTHING
        wait(handed, poll_seconds=0.5)
        code = code_of({standing(workdir, jobs, cell.name)[0] for cell in cells})
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        write_sweep(workdir, asked, flags.file)
        code = driven(flags, jobs, [cell.name for cell in own], changed)
    changed()
    print(summary(workdir, cells, jobs))
    print(comparison(workdir))
    for directory in strangers(workdir, jobs):
        print(f"{directory} is no longer part of this sweep: its config has changed")
    return code


def driven(
    flags: argparse.Namespace,
    jobs: dict[str, Job],
    wanted: Sequence[str],
    changed: Callable[[], None],
) -> int:
    """Runs cells here; the exit code."""
    settings = Settings(
        workers=flags.workers, cell_seconds=flags.cell_seconds, beat_seconds=5.0,
        stale_seconds=flags.stale_seconds, poll_seconds=0.5, retry_failed=flags.retry_failed,
    )  # fmt: skip
    command = functools.partial(command_of, flags.workdir, jobs)
    display = Display(sys.stderr, every_s=60.0)
    return Driver(flags.workdir, jobs, wanted, command, settings, display, changed).drive()


def comparison(workdir: pathlib.Path) -> str:
    """What the cells say of the ablations, in words; the page lies in the sweep's directory."""
    try:
        found, cells = compared(workdir, AS_USUAL, None)
        write_comparison(workdir, found, cells)
    except (CellError, JournalError) as error:
        return f"no comparison: {error}"
    return f"\n{markdown(found)}\n{workdir / FILE} has it as a page"


def main() -> None:
    """From the command line."""
    flags = parser().parse_args()
    if wrong := wrong_in(flags):
        end(wrong)
    flags.workdir = flags.workdir or pathlib.Path("runs/sweeps") / pathlib.Path(flags.file).stem
    try:
        sys.exit(sweep(flags))
    except (SweepError, SubmitError) as error:
        for line in str(error).split("\n"):
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        end(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
