"""The attention kernels side by side: value and gradient at Gemma-3-1b's heads, seconds and memory.

    python benchmarks/attention.py

Runs of the kernels take turns, so that a drifting machine slows both. Prints a JSON line per length
and dtype: the median of the ratios fused / einsum, and XLA's temporary memory of each.
"""

import functools
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from models.attention import ATTENTION, visible

BATCH, HEADS, KV_HEADS, HEAD_DIM, WINDOW, RUNS = 4, 4, 1, 256, 512, 7


def compiled(name: str, shapes: tuple) -> jax.stages.Compiled:
    """Value and gradient of a kernel."""

    def loss(q, k, v, seen):
        return jnp.sum(ATTENTION[name](q, k, v, seen, None).astype(jnp.float32) ** 2)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile()


def seconds(run: functools.partial) -> float:
    """One run."""
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def main() -> None:
    """Every length and dtype."""
    for dtype in ("float32", "bfloat16"):
        for length in (256, 1024):
            random = np.random.default_rng(0)
            q, k, v = (
                jnp.asarray(random.standard_normal((BATCH, length, heads, HEAD_DIM)), dtype)
                for heads in (HEADS, KV_HEADS, KV_HEADS)
            )
            position = jnp.tile(jnp.arange(length)[None], (BATCH, 1))
            inputs = (q, k, v, visible(position, position, WINDOW))
            programs = {name: compiled(name, inputs) for name in ATTENTION}
            runs = {name: functools.partial(program, *inputs) for name, program in programs.items()}
            for run in runs.values():
                seconds(run)
            times = [{name: seconds(run) for name, run in runs.items()} for _ in range(RUNS)]
            row = {
                "device": jax.devices()[0].device_kind,
                "dtype": dtype,
                "length": length,
                "einsum_ms": round(1e3 * statistics.median(t["einsum"] for t in times), 1),
                "fused_over_einsum": round(
                    statistics.median(t["fused"] / t["einsum"] for t in times), 2
                ),
                "temporary_mib": {
                    name: program.memory_analysis().temp_size_in_bytes >> 20
                    for name, program in programs.items()
                },
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
