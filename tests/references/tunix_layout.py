"""Tunix's architectures and parameters by name <-> ours."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.config import LOCAL, GemmaConfig, layer_kinds
from models.gemma import param_shapes
from models.sharding import path_name
from tests.references.tunix_models import ARCHITECTURES, COMMON

HEADS_IN_FRONT = (1, 0, 2)  # which is its own inverse
TOP = {
    "embedder/table": "embedder.input_embedding",
    "final_norm/scale": "final_norm.scale",
}
# Within a layer: our leaf -> Tunix's, which part of it, and the axes.
LAYER: dict[str, tuple[str, int | None, tuple[int, ...] | None]] = {
    "attention/q/w": ("attn.q_einsum.w", None, HEADS_IN_FRONT),
    "attention/k/w": ("attn.kv_einsum.w", 0, HEADS_IN_FRONT),
    "attention/v/w": ("attn.kv_einsum.w", 1, HEADS_IN_FRONT),
    "attention/o/w": ("attn.attn_vec_einsum.w", None, None),
    "attention/q_norm/scale": ("attn._query_norm.scale", None, None),
    "attention/k_norm/scale": ("attn._key_norm.scale", None, None),
    "mlp/gate/w": ("mlp.gate_proj.kernel", None, None),
    "mlp/up/w": ("mlp.up_proj.kernel", None, None),
    "mlp/down/w": ("mlp.down_proj.kernel", None, None),
    "pre_attention_norm/scale": ("pre_attention_norm.scale", None, None),
    "post_attention_norm/scale": ("post_attention_norm.scale", None, None),
    "pre_ffw_norm/scale": ("pre_ffw_norm.scale", None, None),
    "post_ffw_norm/scale": ("post_ffw_norm.scale", None, None),
}
GEMMA2 = {"post_attention_norm/scale": ("post_attn_norm.scale", None, None)}


def config_of(name: str) -> GemmaConfig:
    """The architecture of a case."""
    case = {**COMMON, **ARCHITECTURES[name]}
    gemma3, depth = case["family"] == "gemma3", case["num_layers"]
    by_width = case.get("scale_by_width", False)
    return GemmaConfig(
        family=case["family"],
        num_layers=depth,
        vocab_size=case["num_embed"],
        width=case["embed_dim"],
        ffn_width=case["hidden_dim"],
        num_heads=case["num_heads"],
        num_kv_heads=case["num_kv_heads"],
        head_dim=case["head_dim"],
        kinds=layer_kinds(depth, ("local",) * (5 if gemma3 else 1) + ("global",)),
        window=case["sliding_window_size"],
        global_theta=1e6 if gemma3 else 1e4,
        global_rope_factor=case.get("global_scale_factor", 1.0),
        query_scalar=case["embed_dim"] / case["num_heads"] if by_width else case["head_dim"],
        attention_softcap=None if gemma3 else 50.0,
        logit_softcap=None if gemma3 else 30.0,
        max_positions=1024,
    )


def case_of(config: GemmaConfig) -> dict[str, Any]:
    """An architecture in Tunix's words; a ValueError names what Tunix has no word for."""
    gemma3 = config.family == "gemma3"
    by_width = config.query_scalar != config.head_dim
    scale = config.width // config.num_heads if by_width and gemma3 else config.head_dim
    expected = {
        "query_scalar": scale,
        "norm_eps": 1e-6,
        "local_theta": 1e4,
        "global_theta": 1e6 if gemma3 else 1e4,
        "attention_softcap": None if gemma3 else 50.0,
        "logit_softcap": None if gemma3 else 30.0,
    }
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise ValueError(f"Tunix's {config.family} has {name}={value}, not this model's")
    if config.num_heads == config.num_kv_heads:
        raise ValueError("Tunix keeps as many key heads as query heads in one array: not mapped")
    case = {
        "family": config.family,
        "num_embed": config.vocab_size,
        "sliding_window_size": config.window,
        "num_layers": config.num_layers,
        "embed_dim": config.width,
        "hidden_dim": config.ffn_width,
        "num_heads": config.num_heads,
        "head_dim": config.head_dim,
        "num_kv_heads": config.num_kv_heads,
        "is_local": tuple(kind == LOCAL for kind in config.kinds),
    }
    more = {"global_scale_factor": config.global_rope_factor, "scale_by_width": by_width}
    return case | (more if gemma3 else {})


def params_of(name: str, weights: dict[str, np.ndarray]) -> dict:
    """The weights of a case in our tree."""
    return to_ours(config_of(name), weights)


def layer_row(config: GemmaConfig, leaf: str) -> tuple[str, int | None, tuple[int, ...] | None]:
    """The row of a leaf within a layer."""
    return {**LAYER, **(GEMMA2 if config.family == "gemma2" else {})}[leaf]


def to_ours(config: GemmaConfig, weights: dict[str, np.ndarray]) -> dict:
    """Tunix's weights in our tree."""

    def read(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path_name(path)
        if name in TOP:
            return jnp.asarray(weights[TOP[name]])
        theirs, part, axes = layer_row(config, name.removeprefix("layers/"))
        layers = [weights[f"layers.{i}.{theirs}"] for i in range(leaf.shape[0])]
        layers = layers if part is None else [x[part] for x in layers]
        return jnp.stack([x if axes is None else x.transpose(axes) for x in layers])

    return jax.tree_util.tree_map_with_path(read, param_shapes(config))


def to_theirs(config: GemmaConfig, params: dict) -> dict[str, np.ndarray]:
    """Our parameters by Tunix's names."""
    weights, parts = {}, {}
    for path, stack in jax.tree_util.tree_leaves_with_path(params):
        name = path_name(path)
        if name in TOP:
            weights[TOP[name]] = np.asarray(stack)
            continue
        theirs, part, axes = layer_row(config, name.removeprefix("layers/"))
        for i, x in enumerate(np.asarray(stack)):
            x = x if axes is None else x.transpose(axes)
            if part is None:
                weights[f"layers.{i}.{theirs}"] = x
            else:
                parts.setdefault(f"layers.{i}.{theirs}", {})[part] = x
    return weights | {name: np.stack([x[0], x[1]]) for name, x in parts.items()}


def gradient_of(name: str, grads) -> dict:
    """A gradient of a case's module in our tree."""
    return state_of(config_of(name), grads)


def state_of(config: GemmaConfig, state) -> dict:
    """A state of Tunix's module, such as its parameters or a gradient, in our tree."""
    from flax import nnx

    flat = nnx.to_flat_state(state)
    found = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
    return to_ours(config, found)
