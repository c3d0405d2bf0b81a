"""Arrays that are not there: shapes of a config's policies, their shardings, their bytes."""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from grpo.training.program import Shape, shapes_on
from models.checkpoints import hf, package
from models.config import SIZES
from models.gemma import param_shapes
from models.loading import find
from models.policy import APPLIED, Policy
from models.sharding import make_mesh

Tree = Any


def base_of(config: Mapping[str, Any]) -> Policy:
    """The base of a config: of the sizes that model.path has, if that is here, or of model.size."""
    model, mesh = config["model"], config["mesh"]
    size = SIZES[model["size"]]
    if model["path"] is None:
        size = dataclasses.replace(size, vocab_size=model["vocab"])  # or a few pieces less
    elif (directory := pathlib.Path(model["path"]) / "config.json").is_file():
        size = hf.read_config(directory.parent)
    elif package.is_named(model["path"]) or pathlib.Path(model["path"]).is_file():
        size = find(model["path"], model["revision"]).config
    devices = make_mesh(**mesh) if mesh["fsdp"] * mesh["tp"] > 1 else None
    return Policy(
        config=size,
        params=shapes_on(devices, param_shapes(size, jnp.dtype(model["param_dtype"]))),
        mesh=devices,
        **{name: model[name] for name in APPLIED},
    )


def count(tree: Tree) -> int:
    """How many parameters there are."""
    return sum(x.size for x in jax.tree.leaves(tree))


def total_bytes(tree: Tree) -> int:
    """What they take altogether."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def device_shape(x: Shape) -> tuple[int, ...]:
    """The part of an array that a device holds."""
    return x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)


def device_bytes(tree: Tree) -> int:
    """What a device holds of arrays."""
    return sum(math.prod(device_shape(x)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def amount(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.2f} MiB"


def saved_bytes(loss: Callable, trainable: Tree, frozen: Tree, batch: Tree, parts: int) -> int:
    """The activations of a microbatch that are saved for the backward pass."""
    part = jax.tree.map(lambda x: Shape((-(-x.shape[0] // parts), *x.shape[1:]), x.dtype), batch)

    def forward(trainable: Tree, frozen: Tree, part: Tree) -> Callable:
        return jax.vjp(lambda x: loss(x, frozen, part), trainable, has_aux=True)[1]

    inputs = (trainable, frozen, part)
    given = collections.Counter((x.shape, x.dtype) for x in jax.tree.leaves(inputs))
    saved = collections.Counter(
        (x.shape, x.dtype) for x in jax.tree.leaves(jax.eval_shape(forward, *inputs))
    )
    return sum(
        math.prod(shape) * dtype.itemsize * n for (shape, dtype), n in (saved - given).items()
    )
