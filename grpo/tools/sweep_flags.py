"""The flags of grpo.tools.sweep, and which of them go together."""

import argparse
import json
import pathlib
import re
from typing import Any

from grpo.checks.arguments import command_line
from grpo.sweeps.submitit_jobs import CLUSTERS
from grpo.tools.teach_flags import count

WHOLE = (0, 1)  # the only one of one part


def shard_of(text: str) -> tuple[int, int]:
    """i/n, for i from 0 on."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected i/n, such as 0/4 to 3/4")
    return int(found[1]), int(found[2])


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON or as it is."""
    name, is_there, value = text.partition("=")
    if not name or not is_there:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def parser() -> argparse.ArgumentParser:
    """The flags, and their defaults."""
    about = "A config under changes and seeds, each cell a run in a process of its own."
    flags = command_line("sweep", about)
    add = flags.add_argument
    add("file", help="a file of configs/sweeps/, or one like it")
    add("--workdir", type=pathlib.Path, help="where all is written; without it runs/sweeps/ and "
        "the file's name")  # fmt: skip
    add("--workers", type=count, default=1, help="cells at a time")
    add("--shard", type=shard_of, default=WHOLE, help="i/n: only this of n equal parts")
    add("--retry_failed", action="store_true", help="try failed cells again")
    add("--cell_seconds", type=count, default=1800, help="without a row in its journals, after "
        "which a cell is killed: longer than compiling and evaluating take")  # fmt: skip
    add("--stale_seconds", type=count, default=300, help="without a sign of life of a driver "
        "elsewhere, after which its cells are taken over")  # fmt: skip
    add("--dry_run", action="store_true", help="only say what would be run")
    handed = flags.add_mutually_exclusive_group()
    handed.add_argument("--emit", choices=("slurm",), help="only print a script that runs it as "
        "an array job")  # fmt: skip
    handed.add_argument("--submit", choices=CLUSTERS, help="have submitit run it as jobs")
    add("--tasks", type=count, help="of the array job, or so many jobs; without it one for each "
        "cell")  # fmt: skip
    add("--submit_option", type=option, action="append", default=[], metavar="NAME=VALUE",
        help="of submitit or of its cluster, such as timeout_min=600 or partition=gpu; again for "
        "further ones")  # fmt: skip
    return flags


def wrong_in(flags: argparse.Namespace) -> str | None:
    """What flags say that does not go together, if they do."""
    if flags.submit_option and not flags.submit:
        return "--submit_option: is of --submit, which is not given"
    if flags.submit and flags.shard != WHOLE:
        return "--shard: --submit gives each of its --tasks one"
    if flags.submit == "local" and not flags.tasks:
        return "--tasks: how many? All local jobs run at a time"
    return None
