"""GGUF files, llama.cpp's one-file checkpoints: architecture, tokenizer and weights.

Matrices lie as in a Hugging Face checkpoint, quantised or not; norms are stored as 1 + scale, in
float32. The weights come out in the widest dtype stored, where a quantised tensor counts as
float32, in which its values are exact: that is float32 for every file with a float32 norm.
"""

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from models.checkpoints.files import refuse_nonfinite
from models.checkpoints.gguf_blocks import dequantise
from models.checkpoints.gguf_config import TABLE, from_header
from models.checkpoints.gguf_header import Header, Tensor, read_header
from models.checkpoints.gguf_tokenizer import read_tokenizer
from models.checkpoints.layout import Slot, build, compare, expand, sizes, their_shape, to_ours
from models.config import GemmaConfig
from models.gemma import param_shapes

__all__ = ["from_header", "load", "read_header", "read_tokenizer", "tensor_names"]

Params = Any
AT_ONCE = 2**16  # values that are dequantised in one go: they stay in a core's cache
HEAD = "output.weight"
TOP = {
    "embedder/table": (TABLE, "V D -> V D"),
    "final_norm/scale": ("output_norm.weight", "D -> D"),
}
LAYER = {
    "pre_attention_norm/scale": ("attn_norm.weight", "D -> D"),
    "attention/q/w": ("attn_q.weight", "(N H) D -> D N H"),
    "attention/k/w": ("attn_k.weight", "(K H) D -> D K H"),
    "attention/v/w": ("attn_v.weight", "(K H) D -> D K H"),
    "attention/o/w": ("attn_output.weight", "D (N H) -> N H D"),
    "attention/q_norm/scale": ("attn_q_norm.weight", "H -> H"),  # Gemma 3 only
    "attention/k_norm/scale": ("attn_k_norm.weight", "H -> H"),
    "post_attention_norm/scale": ("post_attention_norm.weight", "D -> D"),
    "pre_ffw_norm/scale": ("ffn_norm.weight", "D -> D"),
    "mlp/gate/w": ("ffn_gate.weight", "F D -> D F"),
    "mlp/up/w": ("ffn_up.weight", "F D -> D F"),
    "mlp/down/w": ("ffn_down.weight", "D F -> F D"),
    "post_ffw_norm/scale": ("post_ffw_norm.weight", "D -> D"),
}


def tensor_names(config: GemmaConfig) -> dict[Slot, tuple[str, str]]:
    """(leaf, layer) -> (tensor name, pattern)."""
    rows = expand(config, TOP, LAYER)
    return {
        (leaf, i): (name if i is None else f"blk.{i}.{name}", pattern)
        for (leaf, i), (name, pattern) in rows.items()
    }


def load(header: Header, config: GemmaConfig, dtype: Any | None, mesh: Mesh | None) -> Params:
    """The parameters of a file, in `dtype` or the widest one stored."""
    found, names, size = dict(header.tensors), tensor_names(config), sizes(config)
    head = found.pop(HEAD, None)
    expected = {name: their_shape(pattern, size) for name, pattern in names.values()}
    compare(header.file, {name: x.info for name, x in found.items()}, expected, TABLE)
    if head and not _equal(head, found[TABLE]):
        raise header.fail(f"{HEAD} differs from {TABLE}, but Gemma's are tied")

    def read(leaf: str, layer: int | None) -> np.ndarray | Iterator[np.ndarray]:
        name, pattern = names[leaf, layer]
        if leaf == "embedder/table":
            return _rows(found[name], config.vocab_size)
        values = np.concatenate(list(_rows(found[name]))).reshape(found[name].info.shape)
        return to_ours(values - 1 if leaf.endswith("/scale") else values, pattern, size)

    return build(param_shapes(config, dtype or _widest(found)), read, mesh)


def _widest(found: dict[str, Tensor]) -> np.dtype:
    """The dtype that holds all values: bfloat16 if all are, else float32."""
    all_short = all(tensor.form.name == "BF16" for tensor in found.values())
    return np.dtype(ml_dtypes.bfloat16 if all_short else np.float32)


def _rows(tensor: Tensor, count: int | None = None) -> Iterator[np.ndarray]:
    """The first rows of a tensor in float32, a part after the other, all of it finite.

    So little is held beside the weights; and the file is read, not mapped, whose pages would count.
    """
    width = tensor.info.shape[-1]
    row_bytes = width // tensor.form.values * tensor.form.bytes
    count = math.prod(tensor.info.shape[:-1]) if count is None else count
    step = max(1, AT_ONCE // width)
    for first in range(0, count, step):
        some = min(step, count - first)
        place = tensor.start + first * row_bytes
        raw = np.fromfile(tensor.info.file, np.uint8, some * row_bytes, offset=place)
        values = dequantise(raw, tensor.form).reshape(some, width)
        refuse_nonfinite(values, f"{tensor.info.file}: tensor {tensor.info.name}", first)
        yield values


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values."""
    pairs = zip(_rows(one), _rows(other), strict=True)
    return one.info.shape == other.info.shape and all(np.array_equal(a, b) for a, b in pairs)
