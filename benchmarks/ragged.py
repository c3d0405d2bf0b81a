"""Rollouts of very different lengths: all rows of a batch in step, or fewer in seats.

    python benchmarks/ragged.py [--ways=batches,seats,halvings] [--rounds=3] [--dtype=float32]
        [--lengths=geometric|lognormal] [--transformers=<python with transformers and torch>]

64 prompts of 64 tokens, 4 completions each, at most 512 tokens of which each stops with a chance of
1 / 128 (64 of the 8192 ids stop, and random weights know no better): geometric lengths. For
lognormal ones of the same mean, the keys of 256 rows are chosen among those of 1024, by the lengths
that they give. The ways take turns in processes that stay alive; what is compared are CPU-seconds
of one pinned core.

    batches         four rollouts of 64 rows, each to the end of its longest row
    seats           256 rows through 64 seats
    halvings        the same, and the seats halve three times when nobody waits any more
    transformers    `generate` in four static batches of 64 rows, which end where ours did

Prints a line of JSON per round, and a table of medians. The tokens of our ways must be equal.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
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
MEAN, SIGMA, CANDIDATES = 128, 0.8, 16  # of the logarithm; keys of a prompt to choose from


def lognormal_lengths() -> np.ndarray:
    """256 quantiles of a lognormal distribution, each at most the limit, in any order."""
    normal = statistics.NormalDist(np.log(MEAN) - SIGMA**2 / 2, SIGMA)
    rows = PROMPTS * GROUP
    lengths = np.exp([normal.inv_cdf((row + 0.5) / rows) for row in range(rows)])
    return np.random.RandomState(1).permutation(np.minimum(np.rint(lengths), NEW))


def chosen(length_PK: np.ndarray) -> np.ndarray:
    """rows_PG: of each prompt the candidates whose lengths are close to lognormal ones."""
    free_PK, rows = length_PK.astype(float), [[] for _ in range(PROMPTS)]
    for wanted in sorted(lognormal_lengths(), reverse=True):  # the rare ones first
        open_P1 = np.array([[len(row) < GROUP] for row in rows])
        gap_PK = np.where(open_P1, np.abs(free_PK - wanted), np.inf)
        p, k = np.unravel_index(np.nanargmin(gap_PK), gap_PK.shape)
        rows[p].append(k)
        free_PK[p, k] = np.nan
    return np.array(rows)


def serve(way: str, dtype: str, lengths: str) -> None:
    """Makes a rollout for each line that comes in, and says what it took."""
    config = dataclasses.replace(our_side.CONFIG, window=NEW)
    sampling = Sampling(work.TEMPERATURE, 0, 1.0, 0.0)
    module = Gemma(config, jnp.dtype(dtype), jnp.float32)
    params = init_params(config, jax.random.key(0), jnp.float32)
    random = np.random.RandomState(0)
    ids_PI = random.randint(3, work.VOCAB, (PROMPTS, work.PROMPT)).astype(np.int32)
    stop_ids = random.permutation(work.VOCAB)[:STOPS].astype(np.int32)

    weights_of = functools.partial(
        decoding_params, params, None, lora_scale=0.0, dtype=jnp.dtype(dtype), mesh=None
    )

    def keys_of(step: int) -> jax.Array:
        if lengths == "geometric":
            return row_keys(0, "train", step, np.arange(PROMPTS * GROUP))
        keys = row_keys(0, "train", step, np.arange(PROMPTS * CANDIDATES))
        length_B = rollout_in_seats(
            module, weights_of(), ids_PI, np.ones_like(ids_PI), keys, sampling, stop_ids,
            group=CANDIDATES, max_new_tokens=NEW, seats=SEATS, halvings=0,
        ).length_B  # fmt: skip
        rows_PG = chosen(np.asarray(length_B).reshape(PROMPTS, CANDIDATES))
        return keys[(np.arange(PROMPTS)[:, None] * CANDIDATES + rows_PG).ravel()]

    def run(keys: jax.Array) -> tuple[list[int], int]:
        weights = weights_of()
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
            np.concatenate([out.length_B for out in outs]).tolist(),
            sum(int(np.asarray(out.completion_ids_BC, np.int64).sum()) for out in outs),
        )

    for line in sys.stdin:
        keys = jax.block_until_ready(keys_of(json.loads(line)["step"]))
        before = work.cpu_seconds()
        found, checksum = run(keys)
        row = {"cpu_s": round(work.cpu_seconds() - before, 2), "checksum": checksum}
        print(json.dumps({**row, "lengths": found}), flush=True)


def main() -> None:
    """The ways in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--lengths", default="geometric", choices=("geometric", "lognormal"))
    parser.add_argument("--transformers", help="the Python of an environment that has it")
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve(flags.serve, flags.dtype, flags.lengths)
        return
    options = [f"--dtype={flags.dtype}", f"--lengths={flags.lengths}"]
    commands = {
        way: [sys.executable, __file__, f"--serve={way}", *options] for way in flags.ways.split(",")
    }
    if flags.transformers:
        theirs = str(pathlib.Path(__file__).with_name("ragged_transformers.py"))
        commands["transformers"] = [flags.transformers, theirs, flags.dtype]
    core = str(max(os.sched_getaffinity(0)))
    ways = {}
    for way, command in commands.items():
        pinned = ["taskset", "-c", core, *command]
        ways[way] = subprocess.Popen(
            pinned,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
    found = {way: [] for way in ways}
    for step in range(flags.rounds + 1):
        ours = [way for way in ways if way != "transformers"][:: -1 if step % 2 else 1]
        lengths = []
        for way in [*ours, *(ways.keys() - set(ours))]:
            process = ways[way]
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps({"step": step, "lengths": lengths}) + "\n")
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            lengths = row.pop("lengths")
            row |= {"way": way, "tokens": sum(lengths), "mean": sum(lengths) / len(lengths)}
            print(json.dumps({"step": step, "dtype": flags.dtype, **row}), flush=True)
            found[way].append({**row, "lengths": lengths})
    for process in ways.values():
        process.communicate()
    for rows in zip(*found.values(), strict=True):
        assert len({tuple(row["lengths"]) for row in rows}) == 1, "the ways have different lengths"
        assert len({row["checksum"] for row in rows} - {None}) == 1, "they have different tokens"
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
