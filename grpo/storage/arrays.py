"""A tree of arrays in a directory of orbax, and back: bit for bit, for any mesh.

Stored flat, by the leaves' paths (`opt_state/1/0/mu/layers/mlp/up/w`), so what a file holds does
not hang on the classes of the tree around it. Structure, shapes, dtypes and shardings come from a
tree `like` the one that was stored, of arrays or of jax.ShapeDtypeStruct; nothing is ever cast or
cut.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

Tree = Any


def named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    for name, leaf in found.items():
        if not isinstance(getattr(leaf, "dtype", None), np.dtype):
            raise ValueError(f"{name} is a {type(leaf).__name__}, not an array of plain numbers")
    if len(found) != len(leaves):
        raise ValueError("two leaves of the tree have the same path")
    return found


@contextlib.contextmanager
def checkpointer() -> Iterator[ocp.Checkpointer]:
    """Orbax, synchronous and without its reports: an asynchronous save dies with its process."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
            yield orbax
    finally:
        logging.set_verbosity(before)


def write_arrays(directory: pathlib.Path, tree: Tree) -> None:
    """Stores a tree; returns when its files are written."""
    with checkpointer() as orbax:
        orbax.save(directory.absolute(), named(tree))


def mismatches(directory: pathlib.Path, like: Tree) -> list[str]:
    """One line for each leaf that is not the same in a directory and in `like`."""
    with checkpointer() as orbax:
        metadata: Any = orbax.metadata(directory.absolute())
    there, here = (
        {name: (tuple(leaf.shape), str(np.dtype(leaf.dtype))) for name, leaf in leaves.items()}
        for leaves in (metadata.item_metadata.tree, named(like))
    )
    lines = []
    for name in sorted({**there, **here}):
        if name not in there:
            lines.append(f"{name} is not in the checkpoint")
        elif name not in here:
            lines.append(f"{name} is in the checkpoint only")
        elif there[name] != here[name]:
            (shape, dtype), (wanted_shape, wanted) = there[name], here[name]
            lines.append(f"{name} is {dtype}{[*shape]}, not {wanted}{[*wanted_shape]}")
    return lines


def read_arrays(directory: pathlib.Path, like: Tree) -> Tree:
    """A stored tree without `mismatches`: structure and shardings of `like`, the stored bits."""
    wanted = named(like)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arguments = {
        name: ocp.ArrayRestoreArgs(
            sharding=getattr(leaf, "sharding", None) or here,
            global_shape=leaf.shape,
            dtype=leaf.dtype,
        )
        for name, leaf in wanted.items()
    }
    with checkpointer() as orbax:
        found = orbax.restore(
            directory.absolute(),
            args=ocp.args.PyTreeRestore(item=wanted, restore_args=arguments),
        )
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])
