"""What a run ran on: versions, devices, processor, cores, settings, commit.

Two runs of a config are equal bit by bit where all of this is equal. XLA's CPU backend cuts its
sums into as many parts as it has threads, one per core that the process may use or as many as NPROC
says, and so adds up in another order where these are more or fewer; another processor has other
instructions.

No names of people or machines and no secrets: settings are JAX's own, by name, and of environment
variables only those of VARIABLES, in which paths are left out.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from grpo.runs.run import Run

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")
SETTINGS = (  # of jax.config, whether set by a JAX_* variable or in code
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_numpy_dtype_promotion",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
)
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")  # read by compilers
ROOT = pathlib.Path(__file__).parent.parent.parent
CPUINFO = pathlib.Path("/proc/cpuinfo")


def environment(run: Run) -> dict[str, Any]:
    """Everything that equal results depend on beside the config."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "backend": jax.default_backend(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processor": processor(),
        "cores": cores(),
        "mesh": dict(run.config["mesh"]),
        **{name: setting(name) for name in SETTINGS},
        **{name: without_paths(os.environ.get(name)) for name in VARIABLES},
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


def changes(before: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """How two rows differ, in what both of them know: those of older versions know less."""
    return [
        f"{key} {before[key]} -> {here[key]}"
        for key in here
        if key in before and before[key] != here[key]
    ]


def setting(name: str) -> bool | int | float | str | None:
    """A setting of JAX, of which other versions may know nothing, or have another type."""
    value = getattr(jax.config, name, None)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def processor() -> str:
    """The processor's model; virtual ones often have a name that says little, hence its numbers."""
    try:
        text = CPUINFO.read_text("utf-8")
    except (OSError, ValueError):
        text = ""
    found = re.search(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    if found is None:
        return platform.processor() or platform.machine()
    numbers = re.findall(r"^cpu (family)\s*: (\d+)$|^(model)\s*: (\d+)$", text, re.MULTILINE)[:2]
    return ", ".join([found[1].strip(), *(" ".join(filter(None, pair)) for pair in numbers)])


def cores() -> int:
    """How many threads XLA's CPU backend has: what these variables say, or the cores it may use."""
    for name in ("PJRT_NPROC", "NPROC"):  # in the order in which XLA asks
        if re.fullmatch(r"\d+", value := os.environ.get(name, "")):
            return max(1, int(value))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def without_paths(flags: str | None) -> str | None:
    """Flags with an ellipsis for each path, which may hold a name and changes no result."""
    return None if flags is None else re.sub(r"[^\s=,]*[/\\]\S*", "...", " ".join(flags.split()))


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
