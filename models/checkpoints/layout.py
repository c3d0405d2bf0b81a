"""From a checkpoint's tensors to our parameters and back: one einops pattern each, read both ways.

The letters are those of `models.config`. A table row is our leaf (within a layer, or outside the
layers), the foreign tensor's name and the pattern "theirs -> ours".
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jax.sharding import Mesh

from models.checkpoints.files import CheckpointError, TensorInfo
from models.config import GemmaConfig
from models.gemma import param_shapes
from models.sharding import path_name, shardings

Params = Any
Slot = tuple[str, int | None]  # (leaf, layer), or (leaf, None) outside the layers
MOST_EXTRA_ROWS = 128  # of padding under the embedding's tokens


def sizes(config: GemmaConfig) -> dict[str, int]:
    """The letters' values."""
    return {
        "V": config.vocab_size,
        "D": config.width,
        "F": config.ffn_width,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
    }


def their_shape(pattern: str, size: Mapping[str, int]) -> tuple[int, ...]:
    """The shape on the left of a pattern."""
    axes = re.findall(r"\(([^)]*)\)|(\w+)", pattern.split("->")[0])
    return tuple(int(np.prod([size[letter] for letter in (a or b).split()])) for a, b in axes)


def to_ours(values: np.ndarray, pattern: str, size: Mapping[str, int]) -> np.ndarray:
    """A foreign tensor in our axes."""
    return rearrange(values, pattern, **{k: n for k, n in size.items() if k in pattern})


def to_theirs(values: np.ndarray, pattern: str, size: Mapping[str, int]) -> np.ndarray:
    """One of our arrays in their axes."""
    theirs, ours = (side.strip() for side in pattern.split("->"))
    return to_ours(values, f"{ours} -> {theirs}", size)


def expand(
    config: GemmaConfig, top: Mapping[str, Any], layer: Mapping[str, Any]
) -> dict[Slot, Any]:
    """(leaf, layer) -> table row, for every parameter that the architecture has."""
    rows: dict[Slot, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(param_shapes(config)):
        name = path_name(path)
        if name in top:
            rows[name, None] = top[name]
            continue
        name = name.removeprefix("layers/")
        rows |= {(name, i): layer[name] for i in range(leaf.shape[0])}
    return rows


def compare(
    where: object,
    found: Mapping[str, TensorInfo],
    expected: Mapping[str, tuple[int, ...]],
    table: str,
) -> None:
    """Raises on the first missing, extra or misshapen tensor; `table` may have rows of padding."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    for problem, names in (("lacks tensor", missing), ("has unexpected tensor", extra)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            place = found[names[0]].file if names[0] in found else where
            raise CheckpointError(
                f"{place}: {problem} {names[0]}{more}; is this the architecture of these weights?"
            )
    for name, shape in expected.items():
        there = found[name].shape
        padded = (
            name == table
            and len(there) == len(shape)
            and there[1:] == shape[1:]
            and 0 <= there[0] - shape[0] <= MOST_EXTRA_ROWS
        )
        if there != shape and not padded:
            raise CheckpointError(
                f"{found[name].file}: tensor {name} has shape {list(there)}, "
                f"the architecture makes it {list(shape)}"
            )


def build(
    shapes: Params,
    read: Callable[[str, int | None], np.ndarray | Iterator[np.ndarray]],
    mesh: Mesh | None,
) -> Params:
    """Parameters of the given shapes from `read(leaf, layer)`, placed on devices one by one.

    Largest first, so that beside the finished weights the host never holds more than one large
    leaf. `read` returns an array, or parts of one along its first axis.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    where = jax.tree.leaves(shardings(shapes, mesh)) if mesh else [None] * len(leaves)
    built: list[Any] = [None] * len(leaves)
    for i in sorted(range(len(leaves)), key=lambda i: -leaves[i][1].size):
        path, leaf = leaves[i]
        built[i] = place(_read_leaf(path_name(path), leaf, read), where[i])
    return jax.tree.unflatten(structure, built)


def _read_leaf(name: str, leaf: jax.ShapeDtypeStruct, read: Callable) -> np.ndarray:
    host = _aligned_empty(leaf.shape, leaf.dtype)
    if name.startswith("layers/"):
        for layer in range(leaf.shape[0]):
            _fill(host[layer], read(name.removeprefix("layers/"), layer))
    else:
        _fill(host, read(name, None))
    return host


def _fill(host: np.ndarray, values: np.ndarray | Iterator[np.ndarray]) -> None:
    if isinstance(values, np.ndarray):
        host[...] = values
        return
    row = 0
    for part in values:
        host[row : row + len(part)] = part
        row += len(part)


def _aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Host memory at a multiple of 64 bytes, which JAX on a CPU takes over without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def place(host: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """A host array on its devices, each of which is sent its own part only."""
    if sharding is None:
        return jax.device_put(host, may_alias=True)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
