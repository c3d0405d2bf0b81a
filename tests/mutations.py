"""Planted mistakes: each one-line change to the code below must turn the named test red.

    python -m tests.mutations [--only=SUBSTRING] [--write]

Works on a copy of the tree, one mistake at a time. Prints a line per mistake and exits with 1 if
one went unnoticed. --write runs nothing: it writes the list of all of them, docs/mutations.md.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.mistakes import Mistake
from tests.mistakes.in_algorithms import MISTAKES as IN_ALGORITHMS
from tests.mistakes.in_asynchrony import MISTAKES as IN_ASYNCHRONY
from tests.mistakes.in_caches import MISTAKES as IN_CACHES
from tests.mistakes.in_checkpoint import MISTAKES as IN_CHECKPOINT
from tests.mistakes.in_data import MISTAKES as IN_DATA
from tests.mistakes.in_demo import MISTAKES as IN_DEMO
from tests.mistakes.in_diagnostics import MISTAKES as IN_DIAGNOSTICS
from tests.mistakes.in_display import MISTAKES as IN_DISPLAY
from tests.mistakes.in_distillation import MISTAKES as IN_DISTILLATION
from tests.mistakes.in_domain_configs import MISTAKES as IN_DOMAIN_CONFIGS
from tests.mistakes.in_durability import MISTAKES as IN_DURABILITY
from tests.mistakes.in_evaluation import MISTAKES as IN_EVALUATION
from tests.mistakes.in_evaluations import MISTAKES as IN_EVALUATIONS
from tests.mistakes.in_finding import MISTAKES as IN_FINDING
from tests.mistakes.in_forks import MISTAKES as IN_FORKS
from tests.mistakes.in_gguf import MISTAKES as IN_GGUF
from tests.mistakes.in_judge_evaluation import MISTAKES as IN_JUDGE_EVALUATION
from tests.mistakes.in_judges import MISTAKES as IN_JUDGES
from tests.mistakes.in_judging import MISTAKES as IN_JUDGING
from tests.mistakes.in_launch import MISTAKES as IN_LAUNCH
from tests.mistakes.in_meshes import MISTAKES as IN_MESHES
from tests.mistakes.in_models import MISTAKES as IN_MODELS
from tests.mistakes.in_pages import MISTAKES as IN_PAGES
from tests.mistakes.in_people import MISTAKES as IN_PEOPLE
from tests.mistakes.in_power import MISTAKES as IN_POWER
from tests.mistakes.in_preferences import MISTAKES as IN_PREFERENCES
from tests.mistakes.in_replayed_stages import MISTAKES as IN_REPLAYED_STAGES
from tests.mistakes.in_replays import MISTAKES as IN_REPLAYS
from tests.mistakes.in_reports import MISTAKES as IN_REPORTS
from tests.mistakes.in_reward_models import MISTAKES as IN_REWARD_MODELS
from tests.mistakes.in_reward_pool import MISTAKES as IN_REWARD_POOL
from tests.mistakes.in_rewards import MISTAKES as IN_REWARDS
from tests.mistakes.in_seats import MISTAKES as IN_SEATS
from tests.mistakes.in_stages import MISTAKES as IN_STAGES
from tests.mistakes.in_statistics import MISTAKES as IN_STATISTICS
from tests.mistakes.in_sweeps import MISTAKES as IN_SWEEPS
from tests.mistakes.in_system_configs import MISTAKES as IN_SYSTEM_CONFIGS
from tests.mistakes.in_system_rewards import MISTAKES as IN_SYSTEM_REWARDS
from tests.mistakes.in_teacher import MISTAKES as IN_TEACHER
from tests.mistakes.in_topologies import MISTAKES as IN_TOPOLOGIES
from tests.mistakes.in_traces import MISTAKES as IN_TRACES
from tests.mistakes.in_training import MISTAKES as IN_TRAINING
from tests.mistakes.in_tunix_losses import MISTAKES as IN_TUNIX_LOSSES
from tests.mistakes.in_units import MISTAKES as IN_UNITS
from tests.mistakes.in_use import MISTAKES as IN_USE
from tests.mistakes.in_wiring import MISTAKES as IN_WIRING
from tests.mistakes.in_worlds import MISTAKES as IN_WORLDS

ROOT = pathlib.Path(__file__).parent.parent
TABLE = ROOT / "docs" / "mutations.md"
MISTAKES = [
    *IN_MODELS,
    *IN_FORKS,
    *IN_CACHES,
    *IN_GGUF,
    *IN_ALGORITHMS,
    *IN_EVALUATION,
    *IN_EVALUATIONS,
    *IN_DATA,
    *IN_REWARDS,
    *IN_REWARD_POOL,
    *IN_SYSTEM_REWARDS,
    *IN_SYSTEM_CONFIGS,
    *IN_TRAINING,
    *IN_CHECKPOINT,
    *IN_DURABILITY,
    *IN_DISPLAY,
    *IN_UNITS,
    *IN_SEATS,
    *IN_STAGES,
    *IN_PREFERENCES,
    *IN_REWARD_MODELS,
    *IN_DISTILLATION,
    *IN_TEACHER,
    *IN_TUNIX_LOSSES,
    *IN_WIRING,
    *IN_WORLDS,
    *IN_DEMO,
    *IN_DOMAIN_CONFIGS,
    *IN_LAUNCH,
    *IN_PEOPLE,
    *IN_PAGES,
    *IN_JUDGES,
    *IN_JUDGING,
    *IN_MESHES,
    *IN_ASYNCHRONY,
    *IN_JUDGE_EVALUATION,
    *IN_TRACES,
    *IN_FINDING,
    *IN_STATISTICS,
    *IN_SWEEPS,
    *IN_POWER,
    *IN_REPORTS,
    *IN_USE,
    *IN_REPLAYS,
    *IN_REPLAYED_STAGES,
    *IN_DIAGNOSTICS,
    *IN_TOPOLOGIES,
]


def left_out(folder: str, names: list[str]) -> list[str]:
    """What the copy does not need; of runs/ only what the root has: grpo/runs is code."""
    of_root = ["runs"] if pathlib.Path(folder) == ROOT else []
    return [name for name in names if name in (".git", "__pycache__", ".venv", *of_root)]


def run(mistake: Mistake, tree: pathlib.Path) -> tuple[bool, str]:
    """Whether the named test went red, and the first line that says so."""
    file = tree / mistake.file
    source = file.read_text()
    if source.count(mistake.old) != 1:
        return False, f"{mistake.file} has {source.count(mistake.old)} places like {mistake.old!r}"
    file.write_text(source.replace(mistake.old, mistake.new))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-rfE",
        mistake.test,
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    file.write_text(source)
    red = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 1 and bool(red), red[0] if red else done.stdout[-200:]


def write() -> None:
    """The list, for readers."""
    head = f"""# {len(MISTAKES)} planted mistakes

Each was made in a copy of the tree when its test was written, and turned that test red;
`python -m tests.mutations` makes them all again. Written by `python -m tests.mutations --write`.

| planted mistake | in | turns red |
|---|---|---|
"""
    rows = [f"| {m.what} | `{m.file}` | `{m.test}` |\n" for m in MISTAKES]
    TABLE.write_text(head + "".join(rows))


def main() -> None:
    """Runs every mistake and tells which went unnoticed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.write:
        write()
        return
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=left_out)
        for mistake in MISTAKES:
            if arguments.only in f"{mistake.what} {mistake.file}":
                red, line = run(mistake, tree)
                missed += not red
                print(f"{'red' if red else 'MISSED'}  {mistake.what}: {line[:150]}", flush=True)
    sys.exit(missed and f"{missed} mistakes went unnoticed")


if __name__ == "__main__":
    main()
