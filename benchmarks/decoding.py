"""What a decoded token costs, by its position, the cache's capacity and the number of rows.

    python benchmarks/decoding.py [--dtype=float32]

The model of work.py with a window of 4096; groups of 4 behind prompts of 64 tokens. A rollout draws
on from a cache in which `position` slots are filled already, in programs of one capacity each; the
cost is of 32 tokens, of which the first runs compile. Prints a table of CPU-milliseconds a step on
one pinned core, medians (least to most) of five.
"""

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import our_side
import work

from grpo.algorithms.distribution import Sampling
from grpo.rollout.sampler import Decoding, Drawing, decode, decoding_params, prefill, row_keys
from models.gemma import Gemma, init_params

WINDOW, GROUP, STEPS, REPEATS = 4096, 4, 32, 5
PLACES = [(8, 512, 100), (8, 1024, 100), (8, 4096, 100), (8, 1024, 900), (8, 4096, 900),
          (8, 4096, 2000), (8, 4096, 4000), (4, 512, 100), (16, 512, 100), (32, 512, 100),
          (64, 512, 100)]  # fmt: skip


def make_run(rows: int, capacity: int, position: int, dtype: str) -> Callable[[], jax.Array]:
    """What draws the tokens after this position."""
    module = Gemma(dataclasses.replace(our_side.CONFIG, window=WINDOW), jnp.dtype(dtype))
    params = init_params(module.config, jax.random.key(0), jnp.float32)
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.dtype(dtype), mesh=None)
    ids_PI = work.draw_ids(work.PROMPT)[: rows // GROUP]
    ids_PI = np.resize(ids_PI, (rows // GROUP, work.PROMPT))
    drawing = Drawing(
        row_keys(0, "train", 0, np.arange(rows)), Sampling(1.0, 0, 1.0, 0.0), jnp.array([-1])
    )
    first = jax.jit(functools.partial(prefill, group=GROUP, max_new_tokens=capacity),
                    static_argnums=0)  # fmt: skip
    state = first(module, weights, ids_PI, np.ones_like(ids_PI), drawing)

    @functools.partial(jax.jit, donate_argnums=0)
    def draw_on(state: Decoding) -> Decoding:
        filled = state.cache.replace(length_B=jnp.full_like(state.cache.length_B, position))
        state = state._replace(cache=filled, c=jnp.int32(0))
        return decode(module, weights, state, drawing, STEPS)

    def run() -> jax.Array:
        nonlocal state
        state = draw_on(state)
        return state.token_B

    return run


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", default="float32")
    flags = parser.parse_args()
    work.pin()
    print("| rows | capacity | position | CPU ms a step |\n| --- | --- | --- | --- |")
    for rows, capacity, position in PLACES:
        run = make_run(rows, capacity, position, flags.dtype)
        jax.block_until_ready(run())
        spans = []
        for _ in range(REPEATS):
            before = work.cpu_seconds()
            jax.block_until_ready(run())
            spans.append((work.cpu_seconds() - before) / STEPS * 1e3)
        print(
            f"| {rows} | {capacity} | {position} | {statistics.median(spans):.2f} "
            f"({min(spans):.2f} to {max(spans):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
