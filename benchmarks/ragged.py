"""Rollouts of very different lengths: all rows of a batch in step, or fewer in seats.

    python benchmarks/ragged.py [--ways=batches,seats,halvings] [--rounds=3] [--dtype=float32]

64 prompts of 64 tokens, 4 completions each, at most 512 tokens of which each stops with a chance of
1 / 128 (64 of the 8192 ids stop, and random weights know no better): geometric lengths. The ways
take turns in processes that stay alive; what is compared are CPU-seconds of one pinned core.

    batches     four rollouts of 64 rows, each to the end of its longest row
    seats       256 rows through 64 seats
    halvings    the same, and the seats halve three times when nobody waits any more

Prints a line of JSON per round, and a table of medians. The tokens of all ways must be equal.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import our_side
import work

from grpo.algorithms.distribution import Sampling
from grpo.rollout.sampler import decoding_params, rollout, row_keys
from grpo.rollout.seats import rollout_in_seats
from models.gemma import Gemma, init_params

SEATS, GROUP, PROMPTS, STOPS, NEW = 64, 4, 64, 64, 512
WAYS = {"batches": None, "seats": (SEATS, 0), "halvings": (SEATS, 3)}


def serve(way: str, dtype: str) -> None:
    """Makes a rollout for each line that comes in, and says what it took."""
    config = dataclasses.replace(our_side.CONFIG, window=NEW)
    sampling = Sampling(work.TEMPERATURE, 0, 1.0, 0.0)
    module = Gemma(config, jnp.dtype(dtype), jnp.float32)
    params = init_params(config, jax.random.key(0), jnp.float32)
    random = np.random.RandomState(0)
    ids_PI = random.randint(3, work.VOCAB, (PROMPTS, work.PROMPT)).astype(np.int32)
    stop_ids = random.permutation(work.VOCAB)[:STOPS].astype(np.int32)

    def run(step: int) -> tuple[int, int]:
        weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.dtype(dtype), mesh=None)
        keys = row_keys(0, "train", step, np.arange(PROMPTS * GROUP))
        static = {"group": GROUP, "max_new_tokens": NEW}
        how = WAYS[way]
        if how is not None:
            static |= {"seats": how[0], "halvings": how[1]}
        write, parts = (rollout_in_seats, 1) if how else (rollout, PROMPTS * GROUP // SEATS)
        outs = [
            write(module, weights, ids, np.ones_like(ids), of_rows, sampling, stop_ids, **static)
            for ids, of_rows in zip(np.split(ids_PI, parts), jnp.split(keys, parts), strict=True)
        ]
        return (
            sum(int(out.length_B.sum()) for out in outs),
            sum(int(np.asarray(out.completion_ids_BC, np.int64).sum()) for out in outs),
        )

    for line in sys.stdin:
        before = work.cpu_seconds()
        tokens, checksum = run(int(line))
        row = {"way": way, "dtype": dtype, "cpu_s": round(work.cpu_seconds() - before, 2)}
        print(json.dumps({**row, "tokens": tokens, "checksum": checksum}), flush=True)


def main() -> None:
    """The ways in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve(flags.serve, flags.dtype)
        return
    core = str(max(os.sched_getaffinity(0)))
    ways = {}
    for way in flags.ways.split(","):
        command = ["taskset", "-c", core, sys.executable, __file__]
        ways[way] = subprocess.Popen(
            [*command, f"--serve={way}", f"--dtype={flags.dtype}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
    found = {way: [] for way in ways}
    for step in range(flags.rounds + 1):
        for way, process in list(ways.items())[:: -1 if step % 2 else 1]:
            assert process.stdin and process.stdout
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            print(json.dumps({"step": step, **row}), flush=True)
            found[way].append(row)
    for process in ways.values():
        process.communicate()
    same = {tuple((row["tokens"], row["checksum"]) for row in rows) for rows in found.values()}
    assert len(same) == 1, "the ways have different tokens"
    base = None
    for way, (first, *rows) in found.items():
        times = [row["cpu_s"] for row in rows]
        median = statistics.median(times)
        base = base or median
        rate = statistics.median(row["tokens"] / row["cpu_s"] for row in rows)
        print(
            f"| {way} | {median:.1f} ({min(times):.1f} to {max(times):.1f}) | {base / median:.2f} "
            f"| {rate:.0f} | {first['cpu_s']:.1f} |"
        )


if __name__ == "__main__":
    main()
