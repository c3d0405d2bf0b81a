"""Every system in small, and what its own mechanism does: docs/rehearsals.md.

    python benchmarks/rehearsals.py [--seeds=0,1,2] [--runs=runs/rehearsals] [--only=NAME,NAME]

    all           configs/<system>.py:tiny of every system, once, and the wall time of each, all
                  compiling included
    mechanisms    for each seed, what shows whether a mechanism works, beside a control without it:
                  rehearsals themselves, and the experiments of benchmarks/controls.py

A run that was stopped goes on, and one that is done is not made again: its config stands in its
folder, and another one is refused there. --only=NAME makes the runs of these and writes no page.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from main_job import percent
from mechanisms import MECHANISMS, evaluation_of
from page import DOCS, put

from grpo.reporting.progress import table

ROOT = pathlib.Path(__file__).parent.parent
SYSTEMS = (
    "grpo_demo_gemma3_1b", "efficiency_gemma3_1b", "full_sft_gemma3_1b", "grpo_gemma2_2b",
    "trajectory_gemma2_2b", "ideae_gemma2_2b", "distill_gemma3_1b", "thought_teacher_gemma2_2b",
    "thinking_in_tokens_gemma3_1b", "medical_gemma3_1b", "legal_gemma3_1b", "chemistry_gemma3_1b",
    "robotics_gemma3_1b", "hybrid_gemma3_1b", "sft_dpo_grpo_gemma2_2b", "rlpr_gemma2_2b",
    "relay_gemma2_2b", "svamp_gemma3_1b", "rar_gemma2_2b", "pinocchio_gemma3_1b",
)  # fmt: skip


def run(config: str, workdir: pathlib.Path, seed: int) -> None:
    """One run to its end, unless it is done; its wall time, all compiling included, beside it."""
    if (workdir / "DONE").exists():
        return
    is_new = not workdir.exists()
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
    began = time.monotonic()
    subprocess.run(
        [*command, f"--config.seed={seed}"],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
        check=True,
    )
    if is_new:  # else it is only the rest of one
        (workdir / "wall.json").write_text(json.dumps({"seconds": time.monotonic() - began}))


def summary(runs: dict[str, pathlib.Path]) -> str:
    """What each rehearsal's last evaluation says, policy by policy, and how long it took."""
    lines = []
    for name, workdir in runs.items():
        timed = workdir / "wall.json"  # not there of a run that was stopped and went on
        wall = f"{json.loads(timed.read_text())['seconds']:.0f}" if timed.exists() else "–"
        for n, (policy, metrics) in enumerate(evaluation_of(workdir).items()):
            start = [f"`{name}`", wall] if n == 0 else ["", ""]
            sampled = "" if "accuracy/strict" in metrics else "sampled/"
            right = percent(metrics, f"{sampled}accuracy/strict")
            lines.append([start[0], policy, f"{right}{' (sampled)' * bool(sampled)}", start[1]])
    return table(["rehearsal", "policy", "right, %", "seconds"], lines)


def main() -> None:
    """Runs what is missing, then writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "rehearsals")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    seeds, root = arguments.seeds.split(","), arguments.runs.absolute()
    only = [name for name in arguments.only.split(",") if name]

    def of(name: str, config: str, seed: str) -> pathlib.Path:
        workdir = root / f"{name}-{seed}"
        if not only or name in only:
            run(config, workdir, int(seed))
        return workdir

    systems = {name: of(name, f"configs/{name}.py:tiny", seeds[0]) for name in SYSTEMS}
    mechanisms = {
        title: {
            name: {seed: of(name, config, seed) for seed in seeds}
            for name, config in mechanism.runs.items()
        }
        for title, mechanism in MECHANISMS.items()
    }
    if only:
        return
    put(DOCS / "rehearsals.md", "all", summary(systems))
    for title, runs in mechanisms.items():
        put(DOCS / "rehearsals.md", title, MECHANISMS[title].tables(runs))


if __name__ == "__main__":
    main()
