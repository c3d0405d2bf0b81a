"""What a config asks of its devices, found out without weights, data or accelerators.

Every program of a stage is traced and lowered at its full shape, each parameter where the table of
models/sharding.py puts it: what does not go together shows here. What a device must hold is
reckoned from the shapes: what lives through a stage, and what a rollout and an update add. What
comes and goes within a layer, and a compiler's own, is not in it (benchmarks/tpu_compile.py).
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.distribution import Sampling
from grpo.algorithms.losses import freeze
from grpo.algorithms.presets import objective_of
from grpo.data.packing import Rows
from grpo.rollout.generate import GREEDY
from grpo.rollout.sampler import decoding_params, rollout, row_keys
from grpo.tools.shapes import (
    Shape,
    Shapes,
    amount,
    count,
    device_bytes,
    device_shape,
    kept_bytes,
    shapes_of,
    total_bytes,
)
from grpo.training.optimizer import optimizer_of
from grpo.training.scoring import (
    Batch,
    Policy,
    Scorer,
    make_policy_loss,
    make_supervised_loss,
    score_rows,
)
from grpo.training.train_step import init_state, make_train_step
from models.cache import init_cache
from models.sharding import describe

Tree = Any
Stage = Mapping[str, Any]
Lines = Iterator[str]
STOP_IDS = np.array([1, 106])  # as many as every family has


def preflight(config: Mapping[str, Any]) -> list[str]:
    """What there is to say, a line each; raises where a program of the run would."""
    shapes = shapes_of(config)
    params = shapes.params()
    mesh = config["mesh"]
    lines = [
        f"model: {count(params):,} parameters, {amount(total_bytes(params))}; on a mesh of "
        f"{mesh['fsdp']} x {mesh['tp']} a device holds {amount(device_bytes(params))}"
    ]
    lines += [f"model: {line}" for line in describe(params, shapes.mesh)] if shapes.mesh else []
    for name in config["pipeline"]:
        stage = config["stages"][name]
        lines += [f"{name}: {line}" for line in STAGES[stage["kind"]](shapes, stage)]
    return lines


def pretend(mesh: Mapping[str, int]) -> None:
    """Takes CPU devices for those of the mesh; before JAX has looked for any."""
    jax.config.update("jax_platforms", "cpu")
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", max(1, mesh["fsdp"] * mesh["tp"]))


def of_grpo(shapes: Shapes, stage: Stage) -> Lines:
    """The rollout, the scoring and the update of an iteration."""
    P, G, C = stage["prompts"], stage["group"], stage["max_new_tokens"]
    start, objective = shapes.start(stage), objective_of(stage["loss"])
    updates = stage["epochs"] * stage["minibatches"]
    scorer = Scorer(
        module=shapes.module(start.scale),
        temperature=stage["sampling"]["temperature"],
        with_entropy=stage["entropy"],
    )
    rows, T = P * G // stage["minibatches"], shapes.config["data"]["max_prompt"] + C
    experience = functools.partial(freeze, limit=C, objective=objective)
    logprob_BC = shapes.rows(jnp.float32, rows, C)
    frozen = jax.eval_shape(
        experience,
        mask_BC=shapes.rows(jnp.bool_, rows, C),
        truncated_B=shapes.rows(jnp.bool_, rows),
        advantage_B=shapes.rows(jnp.float32, rows),
        old_logprob_BC=logprob_BC if updates > 1 else None,
        ref_logprob_BC=logprob_BC if objective.kl_coef > 0 else None,
        sample_logprob_BC=logprob_BC,
    )
    tokens: Any = shapes.rows(jnp.int32, rows, T)
    loss = make_policy_loss(scorer, objective, is_adapter=start.adapter is not None)
    yield from of_update(
        shapes, stage, start, Batch(tokens, tokens, frozen), loss, stage["iterations"] * updates
    )
    yield from of_rollout(shapes, start, P, G, C, stage["sampling"])
    tokens = shapes.rows(jnp.int32, P * G, T)
    parts = stage["microbatches"] * stage["minibatches"]
    score = functools.partial(score_rows.lower, scorer, completion=C, parts=parts)
    seconds = timed(lambda: score(start.variables, tokens, tokens))
    yield f"scoring: {P * G} rows of {T} tokens in {parts} parts; lowered in {seconds}"


def of_sft(shapes: Shapes, stage: Stage) -> Lines:
    """The update of a step."""
    start, rows = shapes.start(stage), stage["batch"]
    width, target = shapes.config["data"]["max_prompt"], stage["max_target"]
    T = stage["packing"] or width + target
    scorer = Scorer(module=shapes.module(start.scale), temperature=1.0, with_entropy=False)
    tokens = shapes.rows(jnp.int32, rows, T)
    weight_BC = shapes.rows(jnp.float32, rows, T - 1 if stage["packing"] else target)
    loss = make_supervised_loss(scorer, is_adapter=start.adapter is not None)
    batch = Rows(tokens, tokens, weight_BC)
    yield from of_update(shapes, stage, start, batch, loss, stage["steps"])


def of_evaluate(shapes: Shapes, stage: Stage) -> Lines:
    """The rollouts of the base, which are those of all policies."""
    base, C = Policy(shapes.params()), stage["max_new_tokens"]
    if stage["greedy"]:
        P = min(stage["batch"], stage["examples"] or stage["batch"])
        yield from of_rollout(shapes, base, P, 1, C, GREEDY)
    if samples := stage["samples"]:
        P = max(1, stage["batch"] // samples)
        yield from of_rollout(shapes, base, P, samples, C, stage["sampling"])


STAGES: dict[str, Callable[[Shapes, Stage], Lines]] = {
    "grpo": of_grpo,
    "sft": of_sft,
    "evaluate": of_evaluate,
}


def of_update(
    shapes: Shapes, stage: Stage, start: Policy, batch: Tree, loss: Callable, total: int
) -> Lines:
    """What a stage holds from its beginning to its end, and its update."""
    optimizer = optimizer_of(stage["optimizer"], total)
    state = shapes.put(jax.eval_shape(lambda x: init_state(x, optimizer), start.trainable))
    what = "all parameters" if start.adapter is None else "an adapter"
    yield (
        f"trains {what}, {count(state.trainable):,} numbers; a device holds "
        f"{amount(device_bytes(start.params))} of weights it starts with, "
        f"{amount(device_bytes(state.trainable))} that are trained, "
        f"{amount(device_bytes(state.opt_state))} of their moments"
    )
    rows, T = batch.ids_BT.shape
    parts = stage["microbatches"]
    step = make_train_step(
        loss, optimizer, microbatches=parts, state=state, frozen=start.frozen,
        rows=rows, mesh=shapes.mesh,
    )  # fmt: skip
    seconds = timed(lambda: step.lower(state, start.frozen, batch))
    kept = kept_bytes(loss, start.trainable, start.frozen, batch, parts)
    fsdp = shapes.config["mesh"]["fsdp"]
    yield (
        f"update: {rows} rows of {T} tokens in {parts} parts; kept for the way back at most "
        f"{amount(kept // fsdp)} on a device; lowered in {seconds}"
    )


def of_rollout(
    shapes: Shapes, policy: Policy, P: int, G: int, C: int, sampling: Mapping[str, Any]
) -> Lines:
    """A rollout by weights that are copied for it."""
    dtype, width = jnp.dtype(shapes.config["model"]["dtype"]), shapes.config["data"]["max_prompt"]
    lower = functools.partial(
        decoding_params.eval_shape, lora_scale=policy.scale, dtype=dtype, mesh=shapes.mesh
    )
    weights = shapes.put(lower(policy.params, policy.adapter), ("tp",))
    module = shapes.module(policy.scale if "lora" in weights else 0.0)
    ids_PI, key_B = Shape((P, width), jnp.int32), row_keys(0, "train", 0, jnp.arange(P * G))
    seconds = timed(
        lambda: rollout.lower(
            module, weights, ids_PI, ids_PI, key_B, Sampling(**sampling), STOP_IDS,
            group=G, max_new_tokens=C,
        )
    )  # fmt: skip
    held = device_shape(shapes.rows(jnp.int32, P * G))[0]
    cache = jax.eval_shape(lambda: init_cache(shapes.size, held, width + C, dtype))
    yield (
        f"rollout: {P} prompts of {width} tokens, {G} x {C} new ones; a device holds "
        f"{amount(device_bytes(weights))} of weights for it and a cache of "
        f"{amount(total_bytes(cache))}; lowered in {seconds}"
    )
    if shapes.mesh is not None:
        yield from describe({}, shapes.mesh, batch=P * G)


def timed(work: Callable[[], Any]) -> str:
    """The time that something takes."""
    began = time.perf_counter()
    work()
    return f"{time.perf_counter() - began:.1f} s"
