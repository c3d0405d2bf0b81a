"""Tunix's parameters by name -> ours."""

import jax.numpy as jnp
import numpy as np

from models.config import GemmaConfig, layer_kinds
from tests.references.tunix_models import ARCHITECTURES, COMMON


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


def params_of(name: str, weights: dict[str, np.ndarray]) -> dict:
    """The weights in our tree."""
    depth, gemma3 = ARCHITECTURES[name]["num_layers"], ARCHITECTURES[name]["family"] == "gemma3"

    def stack(leaf: str, part: int | None = None, axes: tuple[int, ...] | None = None):
        layers = [weights[f"layers.{i}.{leaf}"] for i in range(depth)]
        layers = layers if part is None else [x[part] for x in layers]
        return jnp.stack([x if axes is None else x.transpose(axes) for x in layers])

    heads_in_front = (1, 0, 2)
    attention = {
        "q": {"w": stack("attn.q_einsum.w", axes=heads_in_front)},
        "k": {"w": stack("attn.kv_einsum.w", 0, heads_in_front)},
        "v": {"w": stack("attn.kv_einsum.w", 1, heads_in_front)},
        "o": {"w": stack("attn.attn_vec_einsum.w")},
    }
    if gemma3:
        attention["q_norm"] = {"scale": stack("attn._query_norm.scale")}
        attention["k_norm"] = {"scale": stack("attn._key_norm.scale")}
    post_attention = "post_attention_norm" if gemma3 else "post_attn_norm"
    return {
        "embedder": {"table": jnp.asarray(weights["embedder.input_embedding"])},
        "final_norm": {"scale": jnp.asarray(weights["final_norm.scale"])},
        "layers": {
            "attention": attention,
            "mlp": {n: {"w": stack(f"mlp.{n}_proj.kernel")} for n in ("gate", "up", "down")},
            "pre_attention_norm": {"scale": stack("pre_attention_norm.scale")},
            "post_attention_norm": {"scale": stack(f"{post_attention}.scale")},
            "pre_ffw_norm": {"scale": stack("pre_ffw_norm.scale")},
            "post_ffw_norm": {"scale": stack("post_ffw_norm.scale")},
        },
    }


def gradient_of(name: str, grads) -> dict:
    """A gradient of Tunix's module in our tree."""
    from flax import nnx

    flat = nnx.to_flat_state(grads)
    return params_of(name, {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat})
