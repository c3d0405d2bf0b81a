"""What a run ran on: versions, devices, commit; no names of people or machines, no secrets."""

import pathlib
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from grpo.runs.run import Run

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")
ROOT = pathlib.Path(__file__).parent.parent.parent


def environment(run: Run) -> dict[str, Any]:
    """Everything that equal results depend on beside the config."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "backend": jax.default_backend(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "mesh": dict(run.config["mesh"]),
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


def version_of(package: str) -> str | None:
    """The installed version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git(*words: str) -> str | None:
    """What git says of this checkout; None without git, or if this is none."""
    program = shutil.which("git")
    if program is None or not (ROOT / ".git").exists():
        return None
    done = subprocess.run(
        [program, "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
