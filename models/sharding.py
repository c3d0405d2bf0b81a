"""Where parameters and batches live on a mesh of axes (fsdp, tp).

One table, path regex -> PartitionSpec. `fsdp` cuts the model width (and the rows of a batch), `tp`
cuts heads, feed-forward width and vocabulary. A parameter that no rule matches is an error. Where a
size does not divide by its mesh axis (one key/value head and tp = 4, an odd batch) that axis is
left whole on every device of it; `describe` says where this happens.

What is not trained may instead be whole along `fsdp` (FROZEN): the devices of that axis then hold
more and have nothing to gather. It is cut along `tp` either way.

A key/value cache has its heads where the weights have theirs, and its rows where the batch's are.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Array = jax.Array
AXES = ("fsdp", "tp")
FROZEN = {"split": AXES, "whole": ("tp",)}  # the axes that cut weights which are not trained

# The leading None of a layer's weight is the stack of layers, which is never cut.
RULES: tuple[tuple[str, P], ...] = (
    (r"embedder/table", P("tp", "fsdp")),  # V D
    (r"layers/attention/[qkv]/w", P(None, "fsdp", "tp", None)),  # L D N|K H
    (r"layers/attention/o/w", P(None, "tp", None, "fsdp")),  # L N H D
    (r"layers/mlp/(gate|up)/w", P(None, "fsdp", "tp")),  # L D F
    (r"layers/mlp/down/w", P(None, "tp", "fsdp")),  # L F D
    (r"layers/attention/[qkv]/a", P(None, "fsdp", None)),  # L D R
    (r"layers/attention/[qkv]/b", P(None, None, "tp", None)),  # L R N|K H
    (r"layers/attention/o/a", P(None, "tp", None, None)),  # L N H R
    (r"layers/mlp/(gate|up)/a", P(None, "fsdp", None)),  # L D R
    (r"layers/mlp/(gate|up)/b", P(None, None, "tp")),  # L R F
    (r"layers/mlp/down/a", P(None, "tp", None)),  # L F R
    (r"layers/(attention/o|mlp/down)/b", P(None, None, "fsdp")),  # L R D
    (r"(layers/.*|final)_norm/scale", P()),
    (r"head/[wb]", P()),  # D H, H: of a reward model
    (r"", P()),  # the counters of a training state
)
CACHE = P("fsdp", "tp", None, None)  # B K H S and B K S H, and B alone


def make_mesh(fsdp: int, tp: int, devices: list | None = None) -> Mesh:
    """A mesh over the first fsdp * tp devices."""
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or tp < 1 or fsdp * tp > len(devices):
        raise ValueError(
            f"mesh (fsdp={fsdp}, tp={tp}) needs {fsdp * tp} devices, here are {len(devices)}"
        )
    return Mesh(np.asarray(devices[: fsdp * tp]).reshape(fsdp, tp), AXES)


def path_name(path: tuple) -> str:
    """A tree path as `layers/mlp/gate/w`; the index of an unstacked layer is left out."""
    return "/".join(str(key.key) for key in path if hasattr(key, "key"))


def spec_for(name: str, ndim: int) -> P:
    """The table's PartitionSpec for a parameter; one that is unstacked lacks the layer axis."""
    for pattern, spec in RULES:
        if re.fullmatch(f"(.*/)?({pattern})", name):
            return P(*spec[1:]) if ndim == len(spec) - 1 else spec
    raise ValueError(f"no sharding rule matches parameter {name!r}: add one to models/sharding.py")


def fit(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The spec without the mesh axes whose size does not divide the array's."""
    axes = (*spec, *(None,) * (len(shape) - len(spec)))
    return P(
        *(a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True))
    )


def shardings(tree: Any, mesh: Mesh, axes: tuple[str, ...] = AXES) -> Any:
    """A NamedSharding per leaf of params, adapter or training state, cut along `axes` only.

    A parameter is known by the end of its path, so optimizer moments lie where their parameters do.
    """

    def one(path, leaf):
        spec = spec_for(path_name(path), len(leaf.shape))
        spec = P(*(axis if axis in axes else None for axis in spec))
        return NamedSharding(mesh, fit(spec, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def places(tree: Any, mesh: Mesh) -> Any:
    """Where a tree lies on the mesh; what does not yet, where the table puts it."""

    def one(leaf: Any, by_table: NamedSharding) -> NamedSharding:
        here = getattr(leaf, "sharding", None)
        return here if isinstance(here, NamedSharding) and here.mesh == mesh else by_table

    return jax.tree.map(one, tree, shardings(tree, mesh))


def put(tree: Any, mesh: Mesh | None, axes: tuple[str, ...] = AXES) -> Any:
    """Params or an adapter there, wherever they are; without a mesh on the first device."""
    where = jax.devices()[0] if mesh is None else shardings(tree, mesh, axes)
    return jax.device_put(tree, where)


def put_rows(rows: Any, mesh: Mesh | None) -> Any:
    """Arrays of a batch with their rows where the mesh has them; without a mesh as they are."""
    if mesh is None:
        return rows
    return jax.device_put(rows, jax.tree.map(lambda x: row_sharding(len(x), x.ndim, mesh), rows))


def row_sharding(batch: int, ndim: int, mesh: Mesh) -> NamedSharding:
    """Rows over fsdp; whole on every device where they do not divide."""
    shape = (batch,) + (1,) * (ndim - 1)
    return NamedSharding(mesh, fit(P("fsdp"), shape, mesh))


def shard_rows(x: Array, mesh: Mesh | None) -> Array:
    """Inside jit: keeps the rows of an activation where the rows of the batch are."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, row_sharding(x.shape[0], x.ndim, mesh))


def cache_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Where an array of a cache lives."""
    return NamedSharding(mesh, fit(P(*CACHE[: len(shape)]), shape, mesh))


def shard_cache(x: Array, mesh: Mesh | None) -> Array:
    """Inside jit: keeps an array of a cache there."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, cache_sharding(x.shape, mesh))


def describe(tree: Any, mesh: Mesh, batch: int | None = None) -> list[str]:
    """One line for each parameter (or the batch) that is left whole along a mesh axis."""
    lines = []
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    wanted = [
        (path_name(path), leaf.shape, spec_for(path_name(path), len(leaf.shape)))
        for path, leaf in leaves
    ]
    if batch is not None:
        wanted.append(("batch rows", (batch,), P("fsdp")))
    for name, shape, spec in wanted:
        for axis, size in zip(spec, shape, strict=False):
            if axis and size % mesh.shape[axis]:
                lines.append(
                    f"{name} {shape}: {size} does not divide by {axis}={mesh.shape[axis]}, "
                    f"so each of the {mesh.shape[axis]} devices along {axis} holds it whole"
                )
    return sorted(set(lines))
