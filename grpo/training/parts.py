"""Many rows through a model, some of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

Array = jax.Array


def in_parts(function: Callable[..., Any], *rows: Array, parts: int) -> Any:
    """What a function makes of rows, every `parts`-th of them at a time, to bound the memory."""

    def cut(x: Array) -> Array:
        filled = jnp.pad(x, ((0, -x.shape[0] % parts),) + ((0, 0),) * (x.ndim - 1))
        return rearrange(filled, "(b m) ... -> m b ...", m=parts)

    def together(x_MB: Any) -> Array:
        return rearrange(x_MB, "m b ... -> (b m) ...")[: rows[0].shape[0]]

    found = jax.lax.map(lambda part: function(*part), tuple(map(cut, rows)))
    return jax.tree.map(together, found)
