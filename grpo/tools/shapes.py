"""Arrays that are not there: the shapes of a config's model, their places, and their bytes."""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from grpo.runs.policies import lora_of
from grpo.runs.run import gemma_of
from grpo.training.scoring import Policy
from models.checkpoints import hf
from models.config import SIZES, GemmaConfig
from models.gemma import Gemma, param_shapes
from models.lora import init_adapter
from models.sharding import AXES, make_mesh, row_sharding, shardings

Tree = Any
Shape = jax.ShapeDtypeStruct


class Shapes(NamedTuple):
    """A config, and the size and mesh that it names."""

    config: Mapping[str, Any]
    size: GemmaConfig
    mesh: Mesh | None

    def put(self, tree: Tree, axes: tuple[str, ...] = AXES) -> Tree:
        """Shapes of parameters, each where the table has it."""
        if self.mesh is None:
            return tree
        places = shardings(tree, self.mesh, axes)
        return jax.tree.map(lambda x, at: Shape(x.shape, x.dtype, sharding=at), tree, places)

    def rows(self, dtype: Any, *shape: int) -> Shape:
        """The shape of a batch's rows, cut over fsdp."""
        at = None if self.mesh is None else row_sharding(shape[0], len(shape), self.mesh)
        return Shape(shape, dtype, sharding=at)

    def module(self, scale: float) -> Gemma:
        """The module of a policy whose adapter has this scale."""
        return gemma_of(self.config["model"], self.size, scale, self.mesh)

    def params(self) -> Tree:
        """The model's parameters."""
        dtype = jnp.dtype(self.config["model"]["param_dtype"])
        return self.put(param_shapes(self.size, dtype))

    def start(self, stage: Mapping[str, Any]) -> Policy:
        """What a stage begins with."""
        params = self.params()
        if (lora := lora_of(stage["lora"])) is None:
            return Policy(params)
        adapter = jax.eval_shape(lambda: init_adapter(lora, params, jax.random.key(0)))
        return Policy(params, lora, self.put(adapter))


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """The size is that of the directory if model.path is one, else what model.size says."""
    model, mesh = config["model"], config["mesh"]
    size = SIZES[model["size"]]
    if model["path"] is None:
        size = dataclasses.replace(size, vocab_size=model["vocab"])  # or a few pieces less
    elif (directory := pathlib.Path(model["path"]) / "config.json").is_file():
        size = hf.read_config(directory.parent)
    return Shapes(config, size, make_mesh(**mesh) if mesh["fsdp"] * mesh["tp"] > 1 else None)


def count(tree: Tree) -> int:
    """How many numbers there are."""
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


def kept_bytes(loss: Callable, trainable: Tree, frozen: Tree, batch: Tree, parts: int) -> int:
    """What the way forward keeps of a microbatch for the way back, beside what goes into it."""
    part = jax.tree.map(lambda x: Shape((-(-x.shape[0] // parts), *x.shape[1:]), x.dtype), batch)

    def forward(trainable: Tree, frozen: Tree, part: Tree) -> Callable:
        return jax.vjp(lambda x: loss(x, frozen, part), trainable, has_aux=True)[1]

    inputs = (trainable, frozen, part)
    given = collections.Counter((x.shape, x.dtype) for x in jax.tree.leaves(inputs))
    kept = collections.Counter(
        (x.shape, x.dtype) for x in jax.tree.leaves(jax.eval_shape(forward, *inputs))
    )
    return sum(
        math.prod(shape) * dtype.itemsize * n for (shape, dtype), n in (kept - given).items()
    )
