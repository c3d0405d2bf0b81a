"""Gradients beside each other: norms and cosines, in all, by parameter and by layer.

    ‖g‖² = Σ g²        cos(g, h) = Σ g h / (‖g‖ ‖h‖)        sums over the parameters of a part

Parts are the paths of the parameters (layers/attention/q/w, or .../a and .../b of an adapter), and
the layers, over whatever is trained in one.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.training.train_step import Loss, gradient
from models.sharding import path_name

Tree = Any
ALL = "all"


@functools.partial(jax.jit, static_argnames=("loss", "microbatches", "group"))
def gradient_of(
    trainable: Tree, frozen: Tree, batch: Tree, *, loss: Loss, microbatches: int, group: int
) -> Tree:
    """The gradient that an update of this batch begins with: grpo/training/train_step.py."""
    return gradient(loss, trainable, frozen, batch, microbatches, group)[0]


def products(left: Tree, right: Tree) -> dict[str, float]:
    """Σ g h of each part, and of all."""
    found: dict[str, float] = {ALL: 0.0}
    pairs = zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True)
    for (path, g), h in pairs:
        name = path_name(path)
        if name.startswith("layers/"):
            each_L = np.asarray(by_first_axis(g, h), float)
            for layer, product in enumerate(each_L):
                part = f"layer {layer}"
                found[part] = found.get(part, 0.0) + float(product)
            product = float(each_L.sum())
        else:
            product = float(jnp.vdot(g, h))
        found[name] = product
        found[ALL] += product
    return found


@jax.jit
def by_first_axis(g: Any, h: Any) -> Any:
    """Σ g h of each layer of a stack."""
    return jnp.sum((g * h).reshape(g.shape[0], -1), axis=1)


def norm(product: float) -> float:
    """‖g‖ out of Σ g²."""
    return math.sqrt(max(product, 0.0))


def cosine(product: float, left: float, right: float) -> float:
    """cos(g, h) out of Σ g h, Σ g² and Σ h²; NaN where one of them is 0."""
    norms = norm(left) * norm(right)
    return product / norms if norms else math.nan


def beside(left: Tree, right: Tree) -> dict[str, dict[str, float]]:
    """Of each part the norms of two gradients, and their cosine."""
    both, lefts, rights = products(left, right), products(left, left), products(right, right)
    return {
        part: {
            "norm": norm(lefts[part]),
            "changed_norm": norm(rights[part]),
            "cosine": cosine(both[part], lefts[part], rights[part]),
        }
        for part in sorted(both, key=place_in_table)
    }


def place_in_table(part: str) -> tuple[int, int, str]:
    """All first, then the layers in their order, then the parameters."""
    if part == ALL:
        return 0, 0, part
    layer = part.removeprefix("layer ")
    return (1, int(layer), part) if layer.isdigit() else (2, 0, part)


def difference(left: Tree, right: Tree) -> Tree:
    """g - h in float32."""
    return jax.tree.map(lambda g, h: g.astype(jnp.float32) - h.astype(jnp.float32), left, right)


def norm_of(tree: Tree) -> float:
    """‖g‖ over all of it."""
    return norm(products(tree, tree)[ALL])


def total(trees: Mapping[str, Tree]) -> Tree:
    """The sum of some gradients."""
    return functools.reduce(lambda g, h: jax.tree.map(jnp.add, g, h), trees.values())
