"""Low-rank adapters (arXiv:2106.09685): y = x W + scale (x a) b, with scale = alpha / rank.

An adapter is a tree of its own beside the parameters, so the reference policy is the same
parameters without it and the optimizer sees nothing else. b starts at zero: a fresh adapter leaves
the model as it is. Deviations from the paper: scale = alpha / sqrt(rank) on request
(arXiv:2312.03732), and a starts uniform in ±1/sqrt(inputs), as PEFT does. `merge` returns new
parameters; to unmerge is to go back to the ones it was given, exactly.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any
TARGETS = {  # name in regexes -> path in a layer
    "q": ("attention", "q"),
    "k": ("attention", "k"),
    "v": ("attention", "v"),
    "o": ("attention", "o"),
    "gate": ("mlp", "gate"),
    "up": ("mlp", "up"),
    "down": ("mlp", "down"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """`targets` is a regex over q, k, v, o, gate, up, down, such as 'q|v' or '.*'."""

    rank: int  # R
    alpha: float
    targets: str = ".*"
    rslora: bool = False

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora rank={self.rank}: expected a positive number")
        if not self.names:
            raise ValueError(f"lora targets={self.targets!r} matches none of {', '.join(TARGETS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The targeted projections."""
        return tuple(name for name in TARGETS if re.fullmatch(self.targets, name))

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


def num_inputs(name: str) -> int:
    """How many axes of a projection's weight are contracted: two (heads and head width) for o."""
    return 2 if name == "o" else 1


def init_adapter(lora: LoraConfig, params: Params, key: Array, dtype: Any = jnp.float32) -> Params:
    """A fresh adapter, stacked as the parameters (arrays or shapes) that it is for."""
    layers: Params = {}
    for i, name in enumerate(lora.names):
        part, leaf = TARGETS[name]
        depth, *shape = params["layers"][part][leaf]["w"].shape
        inputs, outputs = shape[: num_inputs(name)], shape[num_inputs(name) :]
        bound = math.prod(inputs) ** -0.5
        a = jax.random.uniform(
            jax.random.fold_in(key, i), (depth, *inputs, lora.rank), dtype, -bound, bound
        )
        b = jnp.zeros((depth, lora.rank, *outputs), dtype)
        layers.setdefault(part, {})[leaf] = {"a": a, "b": b}
    return {"layers": layers}


def merge(params: Params, adapter: Params, scale: float) -> Params:
    """New parameters w + scale · a b, added in float32 and rounded once to w's dtype."""

    def one(wab: tuple[Array, Array, Array]) -> Array:
        w, a, b = wab
        delta = jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), axes=1)
        return (w.astype(jnp.float32) + scale * delta).astype(w.dtype)

    layers = {**params["layers"]}
    for part, leaves in adapter["layers"].items():
        layers[part] = {**layers[part]}
        for leaf, ab in leaves.items():
            w = layers[part][leaf]["w"]
            layers[part][leaf] = {"w": jax.lax.map(one, (w, ab["a"], ab["b"]))}
    return {**params, "layers": layers}
