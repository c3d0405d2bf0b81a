"""What a config asks of its devices, found out without weights, data or accelerators.

Every program that a stage builds is traced and lowered at its full shapes, each parameter sharded
by the table of models/sharding.py: what does not go together shows here. What a device must hold is
reckoned from the shapes: what lives through a stage, and what a rollout and an update add. What
comes and goes within a layer, and a compiler's own, is not in it (benchmarks/tpu_compile.py).
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from grpo.runs.shapes import base_of, shapes_at_start
from grpo.tools.shapes import (
    amount,
    count,
    device_bytes,
    device_shape,
    saved_bytes,
    total_bytes,
)
from grpo.training.program import Program, rows_shape
from models.cache import init_cache
from models.policy import Policy
from models.sharding import describe

Lines = Iterator[str]


def preflight(config: Mapping[str, Any], stages: Mapping[str, Any]) -> list[str]:
    """What there is to say, a line each; raises where a program of the run would."""
    base, mesh = base_of(config), config["mesh"]
    lines = [
        f"model: {count(base.params):,} parameters, {amount(total_bytes(base.params))}; on a mesh "
        f"of {mesh['fsdp']} x {mesh['tp']} a device holds {amount(device_bytes(base.params))}"
    ]
    lines += [f"model: {line}" for line in describe(base.params, base.mesh)] if base.mesh else []
    for name in config["pipeline"]:
        stage = config["stages"][name]
        policy = shapes_at_start(base, stage)
        programs = stages[stage["kind"]].build(config, name, policy)
        lines += [f"{name}: {line}" for line in about(programs, policy)]
    return lines


def pretend(mesh: Mapping[str, int]) -> None:
    """Takes CPU devices for those of the mesh; before JAX has looked for any."""
    jax.config.update("jax_platforms", "cpu")
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", max(1, mesh["fsdp"] * mesh["tp"]))


def about(programs: Mapping[str, Program], policy: Policy) -> Lines:
    """What a stage holds from its beginning to its end, and each of its programs."""
    for name, program in programs.items():
        began = time.perf_counter()
        program.lower()
        seconds = time.perf_counter() - began
        if "loss" in program.facts:
            yield trained(program, policy)
        yield f"{name}: {needed(program, policy)}; lowered in {seconds:.1f} s"
        if "group" in program.static and policy.mesh is not None:
            yield from describe({}, policy.mesh, batch=program.cases[0][4].shape[0])


def trained(program: Program, policy: Policy) -> str:
    """What a stage holds from its beginning to its end."""
    state = program.cases[-1][0]
    what = "all parameters" if policy.adapter is None else "an adapter"
    return (
        f"trains {what}, {count(state.trainable):,} parameters; a device holds "
        f"{amount(device_bytes(policy.params))} of weights it starts with, "
        f"{amount(device_bytes(state.trainable))} that are trained, "
        f"{amount(device_bytes(state.opt_state))} of their moments"
    )


def needed(program: Program, policy: Policy) -> str:
    """A program in its largest case: its shapes, and what a device holds for it."""
    case, static = program.cases[-1], program.static
    if "loss" in program.facts:
        state, frozen, batch = case
        loss, parts = program.facts["loss"], program.facts["microbatches"]
        saved = saved_bytes(loss, state.trainable, frozen, batch, parts)
        *rows, T = jax.tree.leaves(batch)[0].shape
        fsdp = policy.mesh.shape["fsdp"] if policy.mesh else 1
        return (
            f"{math.prod(rows)} rows of {T} tokens in {parts} parts; saved for the backward pass "
            f"at most {amount(saved // fsdp)} on a device"
        )
    if "group" in static:
        _, weights, ids_PI, _, key_B, *_ = case
        prompts, width = ids_PI.shape
        G, C = static["group"], static["max_new_tokens"]
        rows = device_shape(rows_shape(policy.mesh, "int32", *key_B.shape))[0]
        dtype = policy.compute_dtype
        cache = jax.eval_shape(lambda: init_cache(policy.config, rows, width + C, dtype))
        return (
            f"{prompts} prompts of {width} tokens, {G} x {C} new ones; a device holds "
            f"{amount(device_bytes(weights))} of weights for it and a cache of "
            f"{amount(total_bytes(cache))}"
        )
    if "parts" in static:
        rows, T = case[-1].shape
        return f"{rows} rows of {T} tokens in {static['parts']} parts"
    return "the weights, copied for decoding"
