"""What the phases of configs/gemma3_270m.py cost, and how far that is from the machine's limit.

    python benchmarks/real_gemma_cost.py [--repeats=3] [--write]

The published weights, the config's batches, all completions of full length; each dtype in a
process of its own. `limit` is what the matrix products of the phase need at the rate that one
large product reaches here in that dtype: attention, norms and draws would cost nothing. Prints a
table, with --write into docs/real_weights.md as well.
"""

import dataclasses
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import work
from absl import app, flags
from page import DOCS, put

from configs.gemma3_270m import get_config
from grpo.algorithms.distribution import Sampling
from grpo.algorithms.groups import groups_of
from grpo.algorithms.losses import with_token_weights
from grpo.data.packing import Rows
from grpo.reporting.progress import table
from grpo.rollout.generate import GREEDY, decoding_program
from grpo.rollout.sampler import Rollout, rollout, row_keys
from grpo.stages import grpo, sft
from grpo.training.optimizer import optimizer_of
from grpo.training.train_step import init_state
from models.loading import load_model
from models.lora import LoraConfig, init_adapter
from models.policy import Policy

REPEATS = flags.DEFINE_integer("repeats", 3, "runs of a phase, after its first")
WRITE = flags.DEFINE_bool("write", False, "the table into docs/real_weights.md")
SIDE = flags.DEFINE_enum("side", None, work.DTYPES, "one dtype, as JSON lines")
SQUARE = 4096


class Phase(NamedTuple):
    """A part of an iteration."""

    name: str
    tokens: int  # that are written or learnt from
    flops: float
    run: Callable[[], object]


def with_adapter(policy: Policy, lora: dict) -> Policy:
    """The policy with a fresh adapter, as a stage begins."""
    config = LoraConfig(rank=lora["rank"], alpha=lora["alpha"])
    adapter = init_adapter(config, policy.params, jax.random.key(0))
    return dataclasses.replace(policy, lora=config, adapter=adapter)


def flops_of(policy: Policy) -> tuple[int, int]:
    """Of one token's way through the layers, and of its logits."""
    table_size = policy.params["embedder"]["table"].size
    layers = sum(x.size for x in jax.tree.leaves(policy.params)) - table_size
    return 2 * layers, 2 * table_size


def repeated(program, state, frozen, batch) -> Callable[[], object]:
    """Update after update from a state; each takes the last one's."""

    def run() -> object:
        nonlocal state
        state, metrics = program(state, frozen, batch)
        return metrics

    return run


def phases(policy: Policy) -> Iterator[Phase]:
    """Those of the config, one after the other."""
    config = get_config()
    stage, prompt = config.stages.grpo, config.data.max_prompt
    P, G, C = stage.prompts, stage.group, stage.max_new_tokens
    B, T = P * G, prompt + C
    layer, logits = flops_of(policy)
    policy = with_adapter(policy, stage.lora)

    random = np.random.default_rng(0)
    ids_PI = jnp.asarray(random.integers(5, 200_000, (P, prompt)), jnp.int32)
    mask_PI, keys = jnp.ones_like(ids_PI), row_keys(0, "train", 0, jnp.arange(B))
    decoding = decoding_program(policy)
    yield Phase("weights to decode with", 0, 0.0, lambda: decoding(policy.params, policy.adapter))
    weights = decoding(policy.params, policy.adapter)

    def sample(sampling) -> Rollout:
        never = jnp.asarray([-1], jnp.int32)
        return rollout(
            policy.module.clone(lora_scale=0.0), weights, ids_PI, mask_PI, keys,
            Sampling(**sampling), never, group=G, max_new_tokens=C,
        )  # fmt: skip

    flops = P * (prompt * layer + logits) + B * (C - 1) * (layer + logits)
    size = f"{B} × {C}"
    yield Phase(f"rollout {size}", B * C, flops, lambda: sample(stage.sampling))
    yield Phase(f"rollout {size}, greedily", B * C, flops, lambda: sample(GREEDY))
    sampled = sample(stage.sampling)

    programs, base = grpo.build(config.to_dict(), "grpo", policy), policy.base()
    forward = B * (T * layer + C * logits)
    score = functools.partial(
        programs["log-probs"], base.variables, sampled.ids_BT, sampled.mask_BT
    )
    yield Phase(f"reference's log-probs {B} × {T}", B * C, forward, score)
    scored = {"advantage_B": jnp.ones(B), "spread_B": jnp.ones(B, bool)}
    scored |= {"old_logprob_BC": None, "ref_logprob_BC": score()}
    needs = grpo.needs_of(config.stages.grpo.to_dict())
    groups = groups_of(sampled._asdict(), scored)
    batch = with_token_weights(groups, limit=C, objective=needs.objective)
    state = init_state(policy.trainable, optimizer_of(stage.optimizer.to_dict(), 1))
    update = repeated(programs["update"], state, policy.frozen, batch)
    yield Phase(f"update {B} × {T}", B * C, 2 * forward, update)

    stage = config.stages.sft
    rows, C = stage.batch, stage.max_target
    ids_BT = jnp.asarray(random.integers(5, 200_000, (rows, prompt + C)), jnp.int32)
    batch = Rows(ids_BT, jnp.ones_like(ids_BT), jnp.full((rows, C), 1 / (rows * C)))
    state = init_state(policy.trainable, optimizer_of(stage.optimizer.to_dict(), 1))
    program = sft.build(config.to_dict(), "sft", policy)["update"]
    flops = 2 * rows * ((prompt + C) * layer + C * logits)
    name = f"supervised update {rows} × {prompt + C}"
    yield Phase(name, rows * C, flops, repeated(program, state, policy.frozen, batch))


def spans(run: Callable[[], object]) -> list[float]:
    """Seconds of the first run, and of the later ones."""
    found = []
    for _ in range(REPEATS.value + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - began)
    return found


def measure(dtype: str) -> None:
    """Every phase in a dtype, a JSON line each."""
    x = jax.random.normal(jax.random.key(0), (SQUARE, SQUARE), dtype)
    dot = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    rate = 2 * SQUARE**3 / min(spans(lambda: dot(x, x))[1:])
    began = time.perf_counter()
    policy = load_model(get_config().model.path, dtype=dtype)
    jax.block_until_ready(policy.params)
    loading = time.perf_counter() - began
    print(json.dumps({"dtype": dtype, "rate": rate, "loading": loading}), flush=True)
    for phase in phases(policy):
        first, *later = spans(phase.run)
        row = {"dtype": dtype, "name": phase.name, "tokens": phase.tokens, "first": first}
        row |= {"seconds": statistics.median(later), "limit": phase.flops / rate}
        row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(row), flush=True)


def main(_) -> None:
    """Both dtypes, and the table."""
    if SIDE.value:
        measure(SIDE.value)
        return
    lines, about = [], []
    for dtype in work.DTYPES:
        command = [sys.executable, __file__, f"--side={dtype}", f"--repeats={REPEATS.value}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        head, *rows = map(json.loads, done.stdout.splitlines())
        about.append(f"{dtype} {head['rate'] / 1e9:.0f} GFLOP/s, loaded in {head['loading']:.1f} s")
        for row in rows:
            tokens, limit = row["tokens"] / row["seconds"], row["seconds"] / (row["limit"] or 1)
            cells = [f"{row['seconds']:.1f}", f"{tokens:.0f}" if tokens else "–"]
            cells += [f"{limit:.1f}" if row["limit"] else "–"]
            cells += [f"{row['first']:.1f}", f"{row['peak']:.1f}"]
            lines.append([f"{row['name']}, {dtype}", *cells])
    header = ["phase", "s", "tokens/s", "× limit", "first s", "peak GiB so far"]
    text = f"Large products: {'; '.join(about)}.\n\n{table(header, lines)}"
    print(text)
    if WRITE.value:
        put(DOCS / "real_weights.md", "costs", text)


if __name__ == "__main__":
    app.run(main)
