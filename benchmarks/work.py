"""One piece of work for several sides, how it is timed, and what it must cost at the least.

Gemma 3 of 7.8 M parameters, 8 prompts of 64 tokens with 4 completions of exactly 128 tokens each:

    rollout    the completions, at temperature 0.9, no token stopping them
    logprobs   the log-probabilities of given completions, forward only
    train      one update: clip 0.2, 0.08 · k3 against given reference log-probabilities, the old
               policy being the policy as it is; gradient clipped to norm 0.1, AdamW
    train4     the same update in four microbatches
    step       all of a GRPO step: completions, their reference log-probabilities, a reward of one
               line, advantages, and the update
    products   one product of two square matrices: what this machine can do while it is shared

`full` trains all parameters, `lora` an adapter of rank 32 on every projection. What is counted are
the 4096 completion tokens, in every case. Runs in every environment, so it imports no side.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata

import numpy as np

LAYERS, WIDTH, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB, WINDOW = 6, 256, 1024, 4, 1, 64, 8192, 128
PROMPTS, GROUP, PROMPT, NEW = 8, 4, 64, 128
ROWS, LENGTH, TOKENS = PROMPTS * GROUP, PROMPT + NEW, PROMPTS * GROUP * NEW
TEMPERATURE, RANK, ALPHA = 0.9, 32, 32.0
CLIP, BETA = 0.2, 0.08
OPTIMIZER = {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1}
PEAK_LR, CLIP_NORM = 3e-6, 0.1
CASES = ("products", "rollout", "logprobs", "train", "train4", "step")
DTYPES, MODES = ("float32", "bfloat16"), ("full", "lora")
# Of one core with AMX, two operations a multiply-add; `products` says what a core here reaches.
FLOPS = {"float32": 170e9, "bfloat16": 1200e9}
SQUARE = 2048
Span = tuple[float, float]  # seconds of wall and of CPU
PACKAGES = {
    "ours": ("jax", "flax"),
    "tunix": ("jax", "flax", "google-tunix", "qwix"),
    "trl": ("torch", "transformers", "trl", "peft"),
}


def draw_ids(columns: int) -> np.ndarray:
    """Token ids that are neither padding nor any special token; a group's rows share a prompt."""
    ids = np.random.default_rng(0).integers(4, VOCAB, (ROWS, columns)).astype(np.int32)
    ids[:, :PROMPT] = np.repeat(ids[::GROUP, :PROMPT], GROUP, axis=0)
    return ids


def draw_advantages() -> np.ndarray:
    """One number per completion."""
    return np.random.default_rng(1).normal(size=ROWS).astype(np.float32)


def reward(ids: Sequence[int]) -> float:
    """A number that differs within a group."""
    return float(sum(map(int, ids)) % 97) / 97


def pin() -> None:
    """One core for this process: CPU-seconds of several threads grow with how they wait.

    To be called before a side starts its threads, which stay where they were started.
    """
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_seconds() -> float:
    """Of this process and its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def now() -> Span:
    """Wall and CPU."""
    return time.perf_counter(), cpu_seconds()


def since(before: Span) -> Span:
    """What has gone by."""
    wall, cpu = now()
    return wall - before[0], cpu - before[1]


def measure(side: str, case: str, dtype: str, mode: str, repeats: int, run: Callable) -> None:
    """Runs it once, then `repeats` times, and reports. `run` ends when its result is there."""
    spans = []
    for _ in range(repeats + 1):
        before = now()
        run()
        spans.append(since(before))
    report(side, case, dtype, mode, spans)


def report(side: str, case: str, dtype: str, mode: str, spans: Sequence[Span]) -> None:
    """Prints a JSON line of some runs, of which the first includes compiling."""
    (first_wall, first_cpu), (walls, cpus) = spans[0], zip(*spans[1:], strict=True)
    row = {
        "side": side,
        "case": case,
        "dtype": dtype,
        "mode": mode,
        "wall_s": round(statistics.median(walls), 3),
        "cpu_s": round(statistics.median(cpus), 3),
        "cpu_min_s": round(min(cpus), 3),
        "cpu_max_s": round(max(cpus), 3),
        "tokens_per_cpu_s": round(TOKENS / statistics.median(cpus)) if case != "products" else None,
        "first_wall_s": round(first_wall, 2),
        "first_cpu_s": round(first_cpu, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "load": round(os.getloadavg()[0], 2),
        "repeats": len(cpus),
        "versions": {
            "python": sys.version.split()[0],
            **{package: metadata.version(package) for package in PACKAGES[side]},
        },
    }
    print(json.dumps(row), flush=True)


def matmul_flops(case: str, mode: str) -> float:
    """What the matrix products of a case need, each prompt read once and no logit unused."""
    if case == "products":
        return 2 * SQUARE**3
    if case == "step":  # the reference has no adapter
        parts = ("rollout", mode), ("logprobs", "full"), ("train", mode)
        return sum(matmul_flops(*part) for part in parts)
    heads = HEADS * HEAD_DIM
    shapes = [
        (WIDTH, heads),
        (WIDTH, KV_HEADS * HEAD_DIM),
        (WIDTH, KV_HEADS * HEAD_DIM),
        (heads, WIDTH),
    ]
    shapes += [(WIDTH, FFN), (WIDTH, FFN), (FFN, WIDTH)]
    base = 2 * LAYERS * sum(n * m for n, m in shapes)  # per token
    lora = 2 * LAYERS * sum(RANK * (n + m) for n, m in shapes) if mode == "lora" else 0
    logits = 2 * WIDTH * VOCAB

    def attention(first: int, last: int) -> float:
        """Scores and averages of the tokens first .. last - 1 of a row."""
        seen = sum((LAYERS - 1) * min(t + 1, WINDOW) + t + 1 for t in range(first, last))
        return 4 * heads * seen

    if case == "rollout":  # merged: the adapter costs nothing here
        prefill = PROMPTS * (PROMPT * base + attention(0, PROMPT) + logits)
        # The last token is drawn and not fed.
        return prefill + ROWS * ((NEW - 1) * (base + logits) + attention(PROMPT, LENGTH - 1))
    read = PROMPTS * PROMPT + ROWS * NEW
    parts = {
        "base": read * base,
        "lora": read * lora,
        "attention": PROMPTS * attention(0, PROMPT) + ROWS * attention(PROMPT, LENGTH),
        "logits": TOKENS * logits,
    }
    if case == "logprobs":
        return sum(parts.values())
    # Forward, the gradient of the inputs, and that of the weights where they are trained.
    times = {"base": 3, "lora": 3, "attention": 3, "logits": 3}
    if mode == "lora":
        times |= {"base": 2, "logits": 2}
    return sum(times[name] * flops for name, flops in parts.items())
