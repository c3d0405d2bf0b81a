"""Hugging Face directories: config.json and safetensors in, merged directories out.

Tensor names carry one of four prefixes (text models `model.`, multimodal ones
`language_model.model.` on disk and `model.language_model.` in memory, bare towers none); vision
towers and projectors are passed over. Every expected tensor must be there in its shape, and nothing
else.
"""

import os
import pathlib
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.checkpoints import hf_config
from models.checkpoints.files import (
    INDEX,
    CheckpointError,
    TensorInfo,
    open_tensors,
    read_json,
    read_tensor,
    whole_directory,
    widest,
    write_json,
    write_tensors,
)
from models.checkpoints.layout import (
    Slot,
    build,
    compare,
    expand,
    sizes,
    their_shape,
    to_ours,
    to_theirs,
)
from models.config import GemmaConfig
from models.gemma import param_shapes
from models.sharding import path_name
from models.tokenizer import Tokenizer

Params = Any
PREFIXES = ("model.", "language_model.model.", "model.language_model.", "")
TOP = {
    "embedder/table": ("embed_tokens.weight", "V D -> V D"),
    "final_norm/scale": ("norm.weight", "D -> D"),
}
LAYER = {
    "pre_attention_norm/scale": ("input_layernorm.weight", "D -> D"),
    "attention/q/w": ("self_attn.q_proj.weight", "(N H) D -> D N H"),
    "attention/k/w": ("self_attn.k_proj.weight", "(K H) D -> D K H"),
    "attention/v/w": ("self_attn.v_proj.weight", "(K H) D -> D K H"),
    "attention/o/w": ("self_attn.o_proj.weight", "D (N H) -> N H D"),
    "attention/q_norm/scale": ("self_attn.q_norm.weight", "H -> H"),  # Gemma 3 only
    "attention/k_norm/scale": ("self_attn.k_norm.weight", "H -> H"),
    "post_attention_norm/scale": ("post_attention_layernorm.weight", "D -> D"),
    "pre_ffw_norm/scale": ("pre_feedforward_layernorm.weight", "D -> D"),
    "mlp/gate/w": ("mlp.gate_proj.weight", "F D -> D F"),
    "mlp/up/w": ("mlp.up_proj.weight", "F D -> D F"),
    "mlp/down/w": ("mlp.down_proj.weight", "D F -> F D"),
    "post_ffw_norm/scale": ("post_feedforward_layernorm.weight", "D -> D"),
}
# Not of the text tower, or not parameters.
PASSED_OVER = re.compile(
    r"(model\.)?(vision_tower|multi_modal_projector)\..*|.*rotary_emb(_local)?\.inv_freq"
)


def tensor_names(config: GemmaConfig) -> dict[Slot, tuple[str, str]]:
    """(leaf, layer) -> (tensor name without prefix, pattern)."""
    rows = expand(config, TOP, LAYER)
    return {
        (leaf, i): (name if i is None else f"layers.{i}.{name}", pattern)
        for (leaf, i), (name, pattern) in rows.items()
    }


def read_config(directory: pathlib.Path) -> GemmaConfig:
    """The architecture of a directory."""
    path = directory / "config.json"
    return hf_config.from_json(read_json(path), str(path))


def load(
    directory: pathlib.Path, config: GemmaConfig, dtype: Any | None, mesh: Mesh | None
) -> Params:
    """The parameters of a directory, in `dtype` or the widest one stored."""
    found = {n: info for n, info in open_tensors(directory).items() if not PASSED_OVER.fullmatch(n)}
    prefix = _prefix(directory, found)
    names, size = tensor_names(config), sizes(config)
    table = found[prefix + TOP["embedder/table"][0]]
    stored = widest(found.values())
    head = found.pop("lm_head.weight", found.pop("language_model.lm_head.weight", None))
    compare(
        directory,
        found,
        {prefix + name: their_shape(pattern, size) for name, pattern in names.values()},
        table.name,
    )
    if head and not np.array_equal(read_tensor(head), read_tensor(table)):
        raise CheckpointError(
            f"{head.file}: lm_head.weight differs from {table.name}, but Gemma's are tied"
        )

    def read(leaf: str, layer: int | None) -> np.ndarray:
        name, pattern = names[leaf, layer]
        values = read_tensor(found[prefix + name])
        return to_ours(
            values[: config.vocab_size] if leaf == "embedder/table" else values, pattern, size
        )

    return build(param_shapes(config, dtype or stored), read, mesh)


def _prefix(directory: pathlib.Path, found: dict[str, TensorInfo]) -> str:
    """What stands before `embed_tokens.weight`."""
    end = TOP["embedder/table"][0]
    prefixes = [prefix for prefix in PREFIXES if prefix + end in found]
    if len(prefixes) != 1:
        raise CheckpointError(
            f"{directory}: {len(prefixes)} tensors named {end} with a prefix of "
            f"{', '.join(PREFIXES[:3])} or none; expected one"
        )
    return prefixes[0]


def save(
    directory: str | pathlib.Path,
    config: GemmaConfig,
    params: Params,
    tokenizer: Tokenizer | None,
    *,
    shard_bytes: int = 2**30,
) -> pathlib.Path:
    """Writes a directory that transformers and `load` read; it appears whole or not at all."""
    dtype = params["embedder"]["table"].dtype
    described = hf_config.to_json(config, dtype.name)  # may refuse, so before the weights
    with whole_directory(directory) as tmp:
        weight_map, total = _save_weights(tmp, config, params, shard_bytes)
        write_json(tmp / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
        write_json(tmp / "config.json", described)
        write_json(
            tmp / "generation_config.json", hf_config.generation_json(config.family, tokenizer)
        )
        if tokenizer is not None:
            write_tokenizer(tmp, tokenizer)
    return pathlib.Path(directory)


def write_tokenizer(directory: pathlib.Path, tokenizer: Tokenizer) -> None:
    """The tokenizer of a directory, with the chat template."""
    (directory / "tokenizer.model").write_bytes(tokenizer.proto)
    write_json(directory / "tokenizer_config.json", hf_config.tokenizer_json(tokenizer))


def _save_weights(
    directory: pathlib.Path, config: GemmaConfig, params: Params, shard_bytes: int
) -> tuple[dict[str, str], int]:
    """The shards, written leaf by leaf; which tensor is in which, and their bytes together."""
    names, size = tensor_names(config), sizes(config)
    shards: list[list[str]] = []
    shard: dict[str, np.ndarray] = {}
    total = 0

    def flush() -> None:
        if shard:
            write_tensors(directory / f"{len(shards)}.part", shard)
            shards.append(list(shard))
            shard.clear()

    arrays = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for (leaf, layer), (name, pattern) in names.items():
        array = arrays[leaf] if layer is None else arrays[f"layers/{leaf}"][layer]
        values = to_theirs(np.asarray(array), pattern, size)
        if sum(v.nbytes for v in shard.values()) + values.nbytes > shard_bytes:
            flush()
        shard["model." + name] = values
        total += values.nbytes
    flush()
    weight_map = {}
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        os.replace(directory / f"{i}.part", directory / file)
        weight_map |= dict.fromkeys(tensors, file)
    return weight_map, total
