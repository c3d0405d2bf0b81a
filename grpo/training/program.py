"""A compiled function together with what it will be called with.

A stage builds its programs from a policy and its config (`build`), and runs these; a preflight
builds them from shapes and lowers every case. So both see the same.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.sharding import AXES, row_sharding, shardings

Tree = Any
Shape = jax.ShapeDtypeStruct


class Program(NamedTuple):
    """A jitted function, and the arguments of each case that it compiles for."""

    function: Any
    cases: tuple[tuple, ...]  # positional arguments: arrays, or their shapes
    static: Mapping[str, Any] = {}  # keywords
    facts: Mapping[str, Any] = {}  # what a preflight reckons with

    def __call__(self, *args: Any) -> Any:
        """Runs it."""
        return self.function(*args, **self.static)

    def eval_shape(self) -> list[Any]:
        """The shapes of what each case gives."""
        return [self.function.eval_shape(*case, **self.static) for case in self.cases]

    def lower(self) -> list[Any]:
        """Every case, traced and lowered, not compiled."""
        return [self.function.lower(*case, **self.static) for case in self.cases]

    def trace(self, case: tuple) -> Any:
        """A case, traced."""
        return self.function.trace(*case, **self.static)


def rows_shape(mesh: Mesh | None, dtype: Any, *shape: int) -> Shape:
    """The shape of a batch's rows, cut over `fsdp`."""
    where = None if mesh is None else row_sharding(shape[0], len(shape), mesh)
    return Shape(shape, jnp.dtype(dtype), sharding=where)


def shapes_on(mesh: Mesh | None, tree: Tree, axes: tuple[str, ...] = AXES) -> Tree:
    """The shapes of parameters, an adapter or a training state, sharded as the table says."""
    if mesh is None:
        return jax.tree.map(lambda x: Shape(x.shape, x.dtype), tree)
    return jax.tree.map(
        lambda x, where: Shape(x.shape, x.dtype, sharding=where), tree, shardings(tree, mesh, axes)
    )
