"""The full Gemma-3-1b shape: written, loaded, run, exported, loaded again bit-equal.

    python benchmarks/load_export.py [--size=gemma3_1b] [--folder=/tmp/somewhere]

Weights are random bfloat16 (no real ones are needed for sizes and seconds). Each phase is a process
of its own, so that its peak memory is its own: the process's high-water mark less what it held
before the phase began. Prints a JSON line per phase.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from models import Policy, load_model, logits, save_hf
from models.config import SIZES
from models.gemma import param_shapes

SIZE = flags.DEFINE_string("size", "gemma3_1b", "a name in models.config.SIZES")
FOLDER = flags.DEFINE_string("folder", None, "where to write (twice the weights); a temporary one")
PHASE = flags.DEFINE_string("phase", None, "one phase alone, in this process")


def random_model(size: str) -> Policy:
    """Random bfloat16 weights of a published shape, drawn leaf by leaf."""
    shapes = param_shapes(SIZES[size], jnp.bfloat16)
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        0.02 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
    ]
    return Policy(config=SIZES[size], params=jax.tree.unflatten(structure, drawn))


def written(folder: pathlib.Path) -> None:
    """Random weights to a Hugging Face directory."""
    save_hf(random_model(SIZE.value), folder / "first")


def loaded(folder: pathlib.Path) -> None:
    """The directory to arrays."""
    jax.block_until_ready(load_model(folder / "first").params)


def forward(folder: pathlib.Path) -> None:
    """Loaded, and one forward of 2 x 64 tokens."""
    ids = np.random.default_rng(0).integers(3, 200_000, (2, 64))
    assert np.isfinite(logits(load_model(folder / "first"), ids)).all()


def exported(folder: pathlib.Path) -> None:
    """Loaded, and written again."""
    save_hf(load_model(folder / "first"), folder / "second")


def compared(folder: pathlib.Path) -> None:
    """Both directories loaded: every bit equal."""
    first, second = (load_model(folder / name) for name in ("first", "second"))
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        assert a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))


PHASES = (written, loaded, forward, exported, compared)


def gib(kib: int) -> float:
    """KiB as GiB."""
    return round(kib / 2**20, 3)


def main(_) -> None:
    """Runs one phase here, or each in a process of its own."""
    if PHASE.value:
        phase = {p.__name__: p for p in PHASES}[PHASE.value]
        jax.devices()  # the backend's own memory is not the phase's
        before, began = resident_kib(), time.monotonic()
        phase(pathlib.Path(FOLDER.value))
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        weights = sum(2 * x.size for x in jax.tree.leaves(param_shapes(SIZES[SIZE.value]))) >> 10
        row = {
            "phase": PHASE.value,
            "size": SIZE.value,
            "seconds": round(seconds, 1),
            "peak_gib": gib(peak - before),
            "weights_gib": gib(weights),
            "peak_over_weights": round((peak - before) / weights, 3),
            "process_peak_gib": gib(peak),
        }
        print(json.dumps(row), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        for phase in PHASES:
            flags_ = [f"--phase={phase.__name__}", f"--folder={FOLDER.value or folder}"]
            subprocess.run([sys.executable, __file__, f"--size={SIZE.value}", *flags_], check=True)


def resident_kib() -> int:
    """What this process holds now."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    app.run(main)
