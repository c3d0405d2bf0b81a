"""A sweep as an array job of Slurm: task i of n runs --shard=i/n.

The script does nothing but start the same command in each task, so that what it needs of a cluster
(partition, accelerators, time) is a line to add at its top. Two minutes before its time is over a
task is told to stop: its runs save, and `sbatch` of the same script goes on with what is left.
"""

import shlex
import sys
from collections.abc import Sequence


def slurm_script(command: Sequence[str], *, name: str, root: str, tasks: int) -> str:
    """The script; `command` are the words of the sweep's command after the interpreter."""
    words = shlex.join([sys.executable, *command])
    return f"""#!/bin/bash
#SBATCH --job-name={shlex.quote(name)}
#SBATCH --array=0-{tasks - 1}
#SBATCH --output=%x-%A_%a.log
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
# Add what your cluster asks for: --partition, --gres=gpu:1, --time, --mem.
set -euo pipefail
cd {shlex.quote(root)}
exec {words} --shard="${{SLURM_ARRAY_TASK_ID}}/{tasks}"
"""
