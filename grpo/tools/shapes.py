"""What arrays that are not there would take."""

import collections
import math
from collections.abc import Callable
from typing import Any

import jax

from grpo.training.program import Shape

Tree = Any


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


def by_device(tree: Tree) -> collections.Counter[int]:
    """The same of every device that holds something, by its number."""
    found = collections.Counter()
    for x in jax.tree.leaves(tree):
        devices = [0] if x.sharding is None else [device.id for device in x.sharding.device_set]
        found.update(dict.fromkeys(devices, device_bytes(x)))
    return found


def leaves_beside(known: Tree, *others: Tree) -> list[Any]:
    """The arrays of other trees that are none of the known ones, each once."""
    seen = {id(x) for x in jax.tree.leaves(known)}
    return list({id(x): x for x in jax.tree.leaves(others) if id(x) not in seen}.values())


def amount(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.2f} MiB"


def lasting(seconds: float) -> str:
    """Seconds for a reader."""
    if seconds >= 1800:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.2f} s"


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
