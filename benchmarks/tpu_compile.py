"""What the TPU compiler says of a rollout and an update of Gemma-3-1b on a v5e host of eight chips.

    pip install -e '.[tpu]'
    JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 python benchmarks/tpu_compile.py

needs no TPU and takes a minute per program. Weights bfloat16, a float32 adapter of rank 64, prompts
of 256 tokens and 512 new ones. Prints a JSON line per program and a table: the memory of a chip,
the collectives, and the compiler's estimate beside what the chip's peaks allow. Estimates, never
timed: read them as "which of two programs", not as seconds. Transfers from memory run beside the
computation and are not in the estimate (hlo.py), so the larger of estimate and floor counts.

Of an update, `whole` keeps the frozen weights whole along fsdp instead of where the sharding table
puts them.
"""

import functools
import json
import math
import time
from typing import Any

import hlo
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo.algorithms.distribution import Sampling
from grpo.algorithms.groups import Groups
from grpo.algorithms.presets import GRPO
from grpo.rollout.sampler import decoding_params, rollout
from grpo.training.logprobs import Logprobs, make_policy_loss
from grpo.training.optimizer import make_optimizer
from grpo.training.train_step import init_state, make_train_step, update
from models.cache import init_cache
from models.config import LOCAL, SIZES
from models.gemma import Gemma, param_shapes
from models.lora import LoraConfig, init_adapter
from models.sharding import AXES, row_sharding, shardings

MESHES = flags.DEFINE_list("meshes", ["8x1", "4x2"], "fsdp x tp")
PROGRAMS = flags.DEFINE_list(
    "programs",
    ["rollout-16", "rollout-256", "update-16", "update-64", "whole-16", "whole-64"],
    "kind and completions, perhaps -microbatches",
)
TEXT = flags.DEFINE_string("text", None, "a folder for the optimised HLO")

CONFIG, PROMPT, NEW, GROUP = SIZES["gemma3_1b"], 256, 512, 4
LORA = LoraConfig(rank=64, alpha=64.0)
DTYPE = jnp.bfloat16
MEMORY_GIB, FLOPS, BANDWIDTH = 15.75, 197e12, 819e9  # of a chip


def place(shapes: Any, places: Any) -> Any:
    """The shapes, each where it is to lie."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, places
    )


def rows(mesh: Mesh, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """An array of the batch's rows."""
    where = row_sharding(shape[0], len(shape), mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def chip_bytes(tree: Any) -> int:
    """What a chip holds of a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def rollout_program(mesh: Mesh, completions: int) -> tuple[jax.stages.Traced, float]:
    """The rollout, and its floor in seconds: each step reads the weights and the cache."""
    merged = functools.partial(
        decoding_params.__wrapped__, adapter=None, lora_scale=1.0, dtype=DTYPE, mesh=None
    )
    shapes = jax.eval_shape(merged, param_shapes(CONFIG, DTYPE))
    params = place(shapes, shardings(shapes, mesh, ("tp",)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), completions))

    def scalar(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P()))

    real, whole = scalar(jnp.float32), scalar(jnp.int32)
    prompts = rows(mesh, jnp.int32, completions // GROUP, PROMPT)
    traced = rollout.trace(
        Gemma(CONFIG, DTYPE, DTYPE, mesh=mesh),
        params,
        prompts,
        prompts,
        rows(mesh, keys.dtype, completions),
        Sampling(temperature=real, top_k=whole, top_p=real, min_p=real),
        scalar(jnp.int32, 2),
        group=GROUP,
        max_new_tokens=NEW,
    )
    held = -(-completions // mesh.shape["fsdp"])
    cache = jax.eval_shape(lambda: init_cache(CONFIG, held, PROMPT + NEW, DTYPE))
    read = chip_bytes(params) + sum(2 * x.size for x in jax.tree.leaves(cache.layers))
    return traced, NEW * read / BANDWIDTH


def update_program(
    mesh: Mesh, completions: int, microbatches: int, axes: tuple[str, ...]
) -> tuple[jax.stages.Traced, float]:
    """The update with frozen weights cut along `axes`, and its floor in seconds: its products."""
    shapes = param_shapes(CONFIG, DTYPE)
    frozen = place(shapes, shardings(shapes, mesh, axes))
    optimizer = make_optimizer(
        learning_rate=lambda _: 3e-6,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        weight_decay=0.1,
        decayed=".*",
        clip_norm=0.1,
    )
    fresh = functools.partial(init_adapter, LORA, key=jax.random.key(0))
    state = jax.eval_shape(lambda p: init_state(fresh(p), optimizer), shapes)
    state = place(state, shardings(state, mesh))
    tokens = rows(mesh, jnp.int32, completions, PROMPT + NEW)
    real_BC = rows(mesh, jnp.float32, completions, NEW)
    groups = Groups(
        ids_BT=tokens,
        mask_BT=tokens,
        completion_mask_BC=rows(mesh, jnp.bool_, completions, NEW),
        truncated_B=rows(mesh, jnp.bool_, completions),
        sample_logprob_BC=None,
        advantage_B=rows(mesh, jnp.float32, completions),
        ref_logprob_BC=real_BC,
        weight_BC=real_BC,
        share_BC=real_BC,
    )
    module = Gemma(CONFIG, DTYPE, DTYPE, LORA.scale, remat="full", mesh=mesh)
    loss = make_policy_loss(Logprobs(module=module, temperature=0.9, with_entropy=False), GRPO)
    if axes == AXES:
        step = make_train_step(
            loss,
            optimizer,
            microbatches=microbatches,
            state=state,
            frozen=frozen,
            rows=completions,
            mesh=mesh,
        )
    else:
        step = jax.jit(
            functools.partial(update, loss=loss, optimizer=optimizer, microbatches=microbatches),
            donate_argnums=0,
            out_shardings=(shardings(state, mesh), NamedSharding(mesh, P())),
        )
    return step.trace(state, frozen, groups), update_flops(completions) / (FLOPS * mesh.size)


def update_flops(completions: int) -> float:
    """Of the matrix products: forward, again for the gradient, and the gradient of what they read.

    The head runs forward once and backward once; the adapter's products are left out.
    """
    layers = param_shapes(CONFIG)["layers"]
    weights = sum(x.size for x in jax.tree.leaves(layers) if x.ndim > 2)
    length = PROMPT + NEW
    seen = sum(
        sum(min(t + 1, CONFIG.window) if kind == LOCAL else t + 1 for t in range(length))
        for kind in CONFIG.kinds
    )
    attention = 4 * CONFIG.num_heads * CONFIG.head_dim * seen
    head = 2 * CONFIG.vocab_size * CONFIG.width * NEW
    return completions * (3 * 2 * weights * length + 4 * attention + 2 * head)


def shares(module: hlo.Module, body: str) -> dict[str, float]:
    """Milliseconds of a decode step: in the layers, in the head, in drawing; `copies` are moves."""
    found = dict.fromkeys(("layers", "head", "drawing", "copies"), 0.0)
    for instruction, times in hlo.walk(module, body):
        origin = instruction.origin
        part = "drawing"
        if instruction.op == "copy":
            part = "copies"
        elif "VD->BTV" in origin:
            part = "head"
        elif "/Gemma/" in origin or "convert" in origin:
            part = "layers"
        found[part] += 1e3 * instruction.cycles * times / hlo.CLOCK_HZ
    return {part: round(ms, 3) for part, ms in found.items()}


def report(program: str, mesh_name: str, mesh: Mesh) -> dict:
    """One program, compiled and read."""
    kind, count, *more = program.split("-")
    row = {"program": program, "mesh": mesh_name}
    if kind == "rollout":
        traced, floor = rollout_program(mesh, int(count))
    else:
        axes = AXES if kind == "update" else ("tp",)
        traced, floor = update_program(mesh, int(count), int(more[0]) if more else 1, axes)
    began = time.perf_counter()
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:  # it does not fit, and says by how much
        return row | {"error": str(error).splitlines()[0][:300]}
    memory = compiled.memory_analysis()
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }
    sizes = {name: round(size / 2**30, 3) for name, size in sizes.items()}
    text = compiled.as_text()
    if TEXT.value:
        with open(f"{TEXT.value}/{program}-{mesh_name}.hlo", "w") as file:
            file.write(text)
    module = hlo.parse(text)
    row |= {
        "compile_s": round(time.perf_counter() - began, 1),
        "gib": sizes | {"all": round(sum(sizes.values()), 3)},
        "floor_ms": round(1e3 * floor, 1),
        "estimate_ms": round(hlo.milliseconds(module), 1),
        "collectives": hlo.collectives(module),
    }
    if kind == "rollout":
        body = hlo.named(hlo.longest_loop(module), "body")
        row["step_ms"] = shares(module, body)
        row["step_collectives"] = hlo.collectives(module, body)
    return row


def table(results: list[dict]) -> list[str]:
    """The rows as markdown."""
    names = ("program", "mesh", "GiB of 15.75", "floor ms", "estimate ms", "collectives: n, MiB")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in results:
        if "error" in row:
            lines.append(f"| {row['program']} | {row['mesh']} | {row['error']} | | | |")
            continue
        moved = "; ".join(f"{kind} {n}, {mib:.0f}" for kind, (n, mib) in row["collectives"].items())
        if "step_collectives" in row:
            inside = ", ".join(f"{k} {n}" for k, (n, _) in row["step_collectives"].items())
            moved += f" (in a decode step: {inside or 'none'})"
        lines.append(
            f"| {row['program']} | {row['mesh']} | {row['gib']['all']:.2f} | {row['floor_ms']} "
            f"| {row['estimate_ms']} | {moved} |"
        )
    return lines


def main(_) -> None:
    """Every program on every mesh."""
    # The chips of one host; by default the topology would be two.
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x4", chips_per_host_bounds=(2, 4, 1)
    )
    results = []
    for mesh_name in MESHES.value:
        shape = [int(n) for n in mesh_name.split("x")]
        mesh = Mesh(np.asarray(topology.devices).reshape(shape), AXES)
        for program in PROGRAMS.value:
            results.append(report(program, mesh_name, mesh))
            print(json.dumps(results[-1]), flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    app.run(main)
