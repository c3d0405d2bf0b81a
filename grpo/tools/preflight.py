"""What a config asks of its devices, found out without weights, data or accelerators.

Every program that a stage builds is traced and lowered at its full shapes, each parameter sharded
by the table of models/sharding.py: what does not go together shows here. What a device must hold is
reckoned from the shapes:

    lives through a stage   the weights it starts with and those of other models (a teacher, a
                            reward model), what is trained, its moments
    an update adds          what is saved for the backward pass, the gradient in float32
    a rollout adds          its copy of the weights, the cache

The first with the most of the others is said last. Not in it: what comes and goes within a layer,
a compiler's own (grpo/topologies/), and what a run keeps of stages before.
"""

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from grpo.checks.devices import count_devices, devices_of
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.tools.shapes import (
    amount,
    by_device,
    count,
    device_bytes,
    leaves_beside,
    saved_bytes,
    total_bytes,
)
from grpo.training.program import Program, Shape
from models.cache import Cache, init_cache
from models.policy import Policy
from models.sharding import cache_sharding, describe


class Said(NamedTuple):
    """A line, and what a device needs for it beside what lives through the stage."""

    line: str
    adds: int = 0


def preflight(config: Mapping[str, Any], stages: Mapping[str, Any]) -> list[str]:
    """What there is to say, a line each; raises where a program of the run would."""
    base, mesh = base_of(config), config["mesh"]
    lines = [
        f"model: {count(base.params):,} parameters, {amount(total_bytes(base.params))}; on a mesh "
        f"of {mesh['fsdp']} x {mesh['tp']} a device holds {amount(device_bytes(base.params))}"
    ]
    lines += [f"model: {line}" for line in describe(base.params, base.mesh)] if base.mesh else []
    needed: dict[str, Counter[int]] = {}
    own = devices_of(config, None)
    for name in config["pipeline"]:
        stage = config["stages"][name]
        policy = shapes_at_start(base, stage)
        programs = stages[stage["kind"]].build(config, name, policy)
        said = list(about(programs, policy))
        lines += [f"{name}: {line}" for line, _ in said]
        adds = max(adds for _, adds in said)
        needed[name] = lives(programs, policy) + Counter(dict.fromkeys(own, adds))
    return [*lines, *reckoned(needed, own=len(own))]


def reckoned(needed: Mapping[str, Counter[int]], own: int) -> Iterator[str]:
    """The stage that takes most of a device, for those of the policy and for any others."""
    for is_own, where in ((True, "on a device"), (False, f"on a device from number {own} on")):
        most = {
            name: max((held[d] for d in held if (d < own) == is_own), default=0)
            for name, held in needed.items()
        }
        stage = max(most, key=most.__getitem__)
        if most[stage]:
            yield f"reckoned in all: {amount(most[stage])} {where}, for {stage}"


def pretend(config: Mapping[str, Any]) -> None:
    """Takes CPU devices for those of a config; before JAX has looked for any."""
    jax.config.update("jax_platforms", "cpu")
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # What is wrong with a mesh is said when the config is checked.
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            jax.config.update("jax_num_cpu_devices", max(1, count_devices(config)))


def about(programs: Mapping[str, Program], policy: Policy) -> Iterator[Said]:
    """What a stage holds from its beginning to its end, and each of its programs."""
    for name, program in programs.items():
        began = time.perf_counter()
        program.lower()
        seconds = time.perf_counter() - began
        if "loss" in program.facts:
            yield Said(trained(program, policy))
        line, adds = needed(program, policy)
        yield Said(f"{name}: {line}; lowered in {seconds:.1f} s", adds)
        if "max_new_tokens" in program.static and policy.mesh is not None:
            yield from map(Said, describe({}, policy.mesh, batch=program.cases[0][4].shape[0]))


def lives(programs: Mapping[str, Program], policy: Policy) -> Counter[int]:
    """The bytes of each device that a stage has from its beginning to its end."""
    return by_device(living(programs, policy))


def living(programs: Mapping[str, Program], policy: Policy) -> tuple:
    """The arrays of it."""
    own, others, changing = (policy.params, policy.adapter), [], []
    for program in programs.values():
        if "loss" in program.facts:
            state, frozen, _ = program.cases[-1]
            changing = [state.trainable, state.opt_state]
            others.append(frozen)
        elif "parts" in program.static:
            others.append(program.cases[-1][:-2])
    return policy.params, leaves_beside(own, others), changing


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


def needed(program: Program, policy: Policy) -> Said:
    """A program in its largest case: its shapes, and what a device holds for it."""
    case, static = program.cases[-1], program.static
    if "loss" in program.facts:
        state, *others = case
        return differentiated(policy, program.facts, (state.trainable, *others), gradients=1)
    if "loss" in static:
        return differentiated(policy, static, case, **program.facts)
    if "max_new_tokens" in static:
        _, weights, ids_PI, _, key_B, *_ = case
        prompts, width = ids_PI.shape
        G, C = static["group"], static["max_new_tokens"]
        copied, seats = device_bytes(weights), static.get("seats", len(key_B))
        cache = device_bytes(cache_of(policy, seats, width + C))
        waiting = ""
        if "seats" in static:
            cache += device_bytes(cache_of(policy, prompts, width))  # of prompts, for who waits
            waiting = f" through {seats} seats"
        return Said(
            f"{prompts} prompts of {width} tokens, {G} x {C} new ones{waiting}; a device holds "
            f"{amount(copied)} of weights for it and a cache of {amount(cache)}",
            copied + cache,
        )
    if "parts" in static:
        rows, T = case[-1].shape
        held = amount(device_bytes(case[:-2]))
        return Said(
            f"{rows} rows of {T} tokens in {static['parts']} parts; {whose(case)} holds {held} of "
            "weights for it",
            forecast_adds(program, policy) if "copies" in program.facts else 0,
        )
    return Said("the weights, copied for decoding")


def differentiated(policy: Policy, static: Mapping, case: tuple, gradients: int) -> Said:
    """A gradient by a loss: what is saved for it, and so many of them at a time."""
    trainable, frozen, batch = case
    loss, parts = static["loss"], static["microbatches"]
    saved = saved_bytes(loss, trainable, frozen, batch, parts)
    *rows, T = jax.tree.leaves(batch)[0].shape
    fsdp = policy.mesh.shape["fsdp"] if policy.mesh else 1
    held = f", beside {gradients} gradients" * (gradients > 1)
    return Said(
        f"{math.prod(rows)} rows of {T} tokens in {parts} parts; saved for the backward pass "
        f"at most {amount(saved // fsdp)} on a device{held}",
        saved // fsdp + gradients * device_bytes(in_float32(trainable)),
    )


def forecast_adds(program: Program, policy: Policy) -> int:
    """What a forecast adds: copies of weights, and what its derivative saves, all in float32."""
    trainable, _, frozen, *rows = program.cases[-1]
    trainable, frozen = in_float32((trainable, frozen))
    saved = saved_bytes(program.facts["of"], trainable, frozen, rows, program.static["parts"])
    fsdp = policy.mesh.shape["fsdp"] if policy.mesh else 1
    return saved // fsdp + device_bytes(in_float32(program.facts["copies"]))


def in_float32(tree: Any) -> Any:
    """The shapes of a tree in float32."""
    return jax.tree.map(lambda x: Shape(x.shape, "float32", sharding=x.sharding), tree)


def whose(case: Any) -> str:
    """The devices of a program: the policy's, or others."""
    first = min(by_device(case))
    return "a device" if first == 0 else f"a device from number {first} on"


def cache_of(policy: Policy, rows: int, capacity: int) -> Cache:
    """The shapes of a rollout's cache, where they are on the mesh."""
    mesh, dtype = policy.mesh, policy.compute_dtype
    cache = jax.eval_shape(lambda: init_cache(policy.config, rows, capacity, dtype))
    if mesh is None:
        return cache
    return jax.tree.map(
        lambda x: Shape(x.shape, x.dtype, sharding=cache_sharding(x.shape, mesh)), cache
    )
