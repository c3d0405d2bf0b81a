"""Log-probabilities by tiles of a real vocabulary beside the plain way.

    python benchmarks/logprobs.py

The plain way holds the logits of all positions. Prints a JSON line per shape with XLA's temporary
memory for the value, the gradient by the hidden states, and that by states and table; nothing is
run for these. Then seconds of both at a size that fits, their runs taking turns, as medians.
"""

import functools
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import work

from grpo.algorithms.logprobs import token_logprobs

B, C, V, D = 4, 512, 262_144, 640
SHAPES = ((B, C, V), (B, C, 2 * V), (B, 2 * C, V))
TIMED, RUNS = (4, 256, 32_768), 5
WHAT = {"value": (), "grad_hidden": (0,), "grad_both": (0, 1)}
Array = jax.Array


def unembed(table_VD: Array, hidden: Array) -> Array:
    """The logits, of a batch or of a block of tokens."""
    return jnp.einsum("...D,VD->...V", hidden, table_VD, preferred_element_type=jnp.float32)


def tiled(hidden_BCD: Array, table_VD: Array, target_BC: Array) -> Array:
    """Ours, of tokens that all count."""
    logprob_BC, _ = token_logprobs(
        unembed,
        table_VD,
        hidden_BCD,
        target_BC,
        jnp.ones_like(target_BC),
        temperature=1.0,
        with_entropy=False,
    )
    return logprob_BC


def plain(hidden_BCD: Array, table_VD: Array, target_BC: Array) -> Array:
    """All logits, their log-softmax, the targets' entries."""
    logprob_BCV = jax.nn.log_softmax(unembed(table_VD, hidden_BCD), axis=-1)
    return jnp.take_along_axis(logprob_BCV, target_BC[..., None], axis=-1)[..., 0]


WAYS = {"tiled": tiled, "plain": plain}


def program(way: str, what: str, inputs: tuple) -> jax.stages.Compiled:
    """The log-probabilities, or a gradient of their weighted sum."""

    def loss(hidden_BCD, table_VD, target_BC):
        logprob_BC = WAYS[way](hidden_BCD, table_VD, target_BC)
        return jnp.sum(logprob_BC * jnp.cos(jnp.arange(logprob_BC.shape[1]))[None])

    function = jax.value_and_grad(loss, argnums=WHAT[what]) if WHAT[what] else WAYS[way]
    return jax.jit(function).lower(*inputs).compile()


def structs(b: int, c: int, v: int) -> tuple:
    """The inputs' shapes."""
    shapes = ((b, c, D), jnp.float32), ((v, D), jnp.float32), ((b, c), jnp.int32)
    return tuple(jax.ShapeDtypeStruct(*shape) for shape in shapes)


def seconds(run: functools.partial) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), work.cpu_seconds()
    jax.block_until_ready(run())
    return time.perf_counter() - wall, work.cpu_seconds() - cpu


def main() -> None:
    """Memory, then time."""
    for shape in SHAPES:
        inputs = structs(*shape)
        row = {"B": shape[0], "C": shape[1], "V": shape[2], "D": D, "logits_mib": 0}
        row["logits_mib"] = 4 * shape[0] * shape[1] * shape[2] >> 20
        for what in WHAT:
            row[f"{what}_temp_mib"] = {
                way: program(way, what, inputs).memory_analysis().temp_size_in_bytes >> 20
                for way in WAYS
            }
        print(json.dumps(row), flush=True)

    random = np.random.default_rng(0)
    b, c, v = TIMED
    inputs = (
        jnp.asarray(random.standard_normal((b, c, D)), jnp.float32),
        jnp.asarray(0.02 * random.standard_normal((v, D)), jnp.float32),
        jnp.asarray(random.integers(0, v, (b, c)), jnp.int32),
    )
    for what in WHAT:
        runs = {way: functools.partial(program(way, what, inputs), *inputs) for way in WAYS}
        first = {way: jax.tree.leaves(run()) for way, run in runs.items()}
        for ours, theirs in zip(first["tiled"], first["plain"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        spans = [{way: seconds(run) for way, run in runs.items()} for _ in range(RUNS)]
        row = {"B": b, "C": c, "V": v, "D": D, "what": what, "load": round(os.getloadavg()[0], 2)}
        for way in WAYS:
            walls, cpus = zip(*(span[way] for span in spans), strict=True)
            row[way] = {
                "wall_s": round(statistics.median(walls), 3),
                "cpu_s": round(statistics.median(cpus), 3),
            }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
