"""Many rows through a model, some of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

Array = jax.Array


def cut(x: Array, parts: int, group: int = 1) -> Array:
    """Rows [B, ...] as [parts, rows of a part, ...], filled up with rows of zeros.

    Part m takes every `parts`-th group of rows, so that each device keeps the rows it has.
    """
    filling = ((0, -x.shape[0] % (parts * group)),) + ((0, 0),) * (x.ndim - 1)
    return rearrange(jnp.pad(x, filling), "(b m g) ... -> m (b g) ...", m=parts, g=group)


def in_parts(function: Callable[..., Any], *rows: Array, parts: int, group: int = 1) -> Any:
    """What a function makes of rows, a part of them at a time, to bound the memory."""

    def joined(x: Array) -> Array:
        return rearrange(x, "m (b g) ... -> (b m g) ...", g=group)[: len(rows[0])]

    cut_rows = tuple(cut(x, parts, group) for x in rows)
    found = jax.lax.map(lambda part: function(*part), cut_rows)
    return jax.tree.map(joined, found)
