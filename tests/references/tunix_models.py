"""Gemma 3 and Gemma 2 as Tunix 0.1.7 computes them, on weights drawn by `recipe`.

    python -m tests.references.tunix_models        (pip install -e '.[test,parity]')

writes tunix_models.npz and .json beside this file; tests/test_tunix.py reads them without Tunix,
and tests/parity/test_tunix_live.py runs `run_case` again.
"""

import functools
import json
import pathlib

import numpy as np

from tests.references.recipe import draw, draw_ids

HERE = pathlib.Path(__file__).parent
COMMON = {"num_embed": 96, "sliding_window_size": 8}
CASES = {
    # One KV head, head width 16 apart from D/N = 12, which is the query scalar, scaled RoPE.
    "gemma3_kv1": {
        "family": "gemma3",
        "num_layers": 7,
        "embed_dim": 48,
        "hidden_dim": 80,
        "num_heads": 4,
        "head_dim": 16,
        "num_kv_heads": 1,
        "global_scale_factor": 8.0,
        "scale_by_width": True,
    },
    "gemma3_kv2": {
        "family": "gemma3",
        "num_layers": 6,
        "embed_dim": 64,
        "hidden_dim": 96,
        "num_heads": 4,
        "head_dim": 16,
        "num_kv_heads": 2,
        "global_scale_factor": 1.0,
        "scale_by_width": False,
    },
    "gemma2_kv2": {
        "family": "gemma2",
        "num_layers": 4,
        "embed_dim": 48,
        "hidden_dim": 80,
        "num_heads": 4,
        "head_dim": 16,
        "num_kv_heads": 2,
    },
}
# For losses and sampling: so small that a gradient can be stored.
SMALL = {
    "gemma3_small": {
        "family": "gemma3",
        "num_layers": 6,
        "embed_dim": 20,
        "hidden_dim": 28,
        "num_heads": 2,
        "head_dim": 8,
        "num_kv_heads": 1,
        "global_scale_factor": 1.0,
    },
    "gemma2_small": {
        "family": "gemma2",
        "num_layers": 4,
        "embed_dim": 20,
        "hidden_dim": 28,
        "num_heads": 2,
        "head_dim": 8,
        "num_kv_heads": 1,
        "sliding_window_size": 32,  # longer than any row: see `rows`
    },
}
ARCHITECTURES = CASES | SMALL
SCALE = {  # 0.4: sharp attention
    "gemma3_kv1": 0.15,
    "gemma3_kv2": 0.15,
    "gemma2_kv2": 0.4,
    "gemma3_small": 0.3,
    "gemma2_small": 0.3,
}
LENGTH, PROMPT, NEW = 28, 10, 14


class IntTokenizer:
    """ "3 17 5" <-> [3, 17, 5], for Tunix's sampler; no text ends a sequence."""

    def encode(self, text, **_):
        return [int(token) for token in text.split()]

    def decode(self, ids, **_):
        return " ".join(str(int(token)) for token in ids)

    def bos_id(self):
        return 2

    def eos_id(self):
        return 1 << 29

    def pad_id(self):
        return 0


@functools.cache
def said(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file that Tunix's side has written."""
    with np.load(HERE / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask: a full row, a left-padded and a right-padded one.

    Tunix's Gemma 2 compares a query's position with a key's column, which left padding sets apart;
    its second row is padded on the right.
    """
    ids = draw_ids(1, 3, LENGTH, COMMON["num_embed"])
    mask = np.ones_like(ids)
    mask[2, -6:] = 0
    if name.startswith("gemma2"):
        mask[1, -9:] = 0
    else:
        mask[1, :9] = 0
    return ids * mask, mask


def make(case: dict):
    """Tunix's module for an architecture in its words."""
    import jax.numpy as jnp
    from flax import nnx
    from tunix.models.gemma import model as tunix2
    from tunix.models.gemma3 import model as tunix3

    case = dict(case)
    family, by_width = case.pop("family"), case.pop("scale_by_width", False)
    is_local = case.pop("is_local", None)
    if family == "gemma3":
        norms = tunix3.QueryPreAttentionNormalisation
        scaling = norms.BY_ONE_OVER_SQRT_HEAD_DIM
        if by_width:
            scaling = norms.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS
        config = tunix3.ModelConfig(
            **case,
            global_base_frequency=1_000_000,
            query_pre_attn_norm=scaling,
            param_dtype=jnp.float32,
        )
        model = tunix3.Gemma3(config, rngs=nnx.Rngs(0))
        for layer, local in zip(model.layers, is_local or (), strict=False):
            set_kind(layer.attn, config, local)
        return model
    kinds = tunix2.AttentionType
    types = (kinds.LOCAL_SLIDING, kinds.GLOBAL) * (case["num_layers"] // 2)
    if is_local is not None:
        types = tuple(kinds.LOCAL_SLIDING if local else kinds.GLOBAL for local in is_local)
    config = tunix2.ModelConfig(
        **case,
        final_logit_softcap=30.0,
        attn_logits_soft_cap=50.0,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=types,
    )
    return tunix2.Gemma(config, rngs=nnx.Rngs(0))


def set_kind(attention, config, local: bool) -> None:
    """Makes a layer of Tunix's Gemma 3 local or global, whose pattern is else five to one."""
    from tunix.models.gemma3 import model as tunix3

    kinds, name = tunix3.AttentionType, "local" if local else "global"
    attention.attn_type = kinds.LOCAL_SLIDING if local else kinds.GLOBAL
    attention.rope_base_frequency = getattr(config, f"{name}_base_frequency")
    attention.rope_scale_factor = getattr(config, f"{name}_scale_factor")


def shapes_of(model) -> dict[str, list[int]]:
    """The shapes of a module's parameters by name."""
    from flax import nnx

    state = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    return {".".join(map(str, path)): list(leaf[...].shape) for path, leaf in sorted_(state)}


def fill(model, weights: dict[str, np.ndarray]) -> None:
    """Gives a module its weights by name."""
    import jax.numpy as jnp
    from flax import nnx

    state = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    for path, leaf in state.items():
        leaf[...] = jnp.asarray(weights[".".join(map(str, path))])
    nnx.update(model, nnx.from_flat_state(list(state.items())))


def build(name: str, seed: int = 0):
    """Tunix's module with drawn weights, and their shapes by name."""
    model = make({**COMMON, **ARCHITECTURES[name]})
    shapes = shapes_of(model)
    fill(model, draw(shapes, seed, SCALE[name]))
    return model, shapes


def sorted_(state: dict) -> list:
    """Items by the text of their paths."""
    return sorted(state.items(), key=lambda item: ".".join(map(str, item[0])))


def run_case(name: str) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Tunix's logits, log-probs and greedy tokens for a case, and its parameters' shapes."""
    import jax.numpy as jnp
    from flax import nnx
    from tunix.generate.sampler import CacheConfig, Sampler
    from tunix.rl import common
    from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

    model, shapes = build(name)
    ids, mask = rows(name)
    positions = build_positions_from_mask(jnp.asarray(mask != 0))
    attention = make_causal_attn_mask(jnp.asarray(mask != 0))
    logits, _ = model(jnp.asarray(ids), positions, None, attention)
    case = CASES[name]
    sampler = Sampler(
        model,
        IntTokenizer(),
        CacheConfig(
            cache_size=PROMPT + NEW,
            num_layers=case["num_layers"],
            num_kv_heads=case["num_kv_heads"],
            head_dim=case["head_dim"],
        ),
    )
    prompts = draw_ids(2, 2, PROMPT, COMMON["num_embed"])
    prompts[:, 0] = 2  # the sampler puts BOS in front by itself
    greedy = sampler(
        np.array([" ".join(map(str, row[1:])) for row in prompts]),
        max_generation_steps=NEW,
        max_prompt_length=PROMPT,
        eos_tokens=[1 << 29],
    )
    logprobs = common.compute_per_token_logps(
        *nnx.split(model),
        prompt_tokens=jnp.asarray(ids[:1, :PROMPT]),
        completion_tokens=jnp.asarray(ids[:1, PROMPT:]),
        pad_id=0,
        eos_id=1,
    )
    arrays = {
        "logits": np.asarray(logits),
        "logprobs": np.asarray(logprobs),
        "prompts": prompts,
        "greedy": np.stack(greedy.tokens).astype(np.int32),
    }
    return arrays, shapes


def main() -> None:
    """Writes the fixture."""
    arrays, shapes = {}, {}
    for name in CASES:
        found, shapes[name] = run_case(name)
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
    shapes |= {name: build(name)[1] for name in SMALL}
    np.savez_compressed(HERE / "tunix_models.npz", **arrays)
    (HERE / "tunix_models.json").write_text(json.dumps(shapes, indent=1) + "\n")


if __name__ == "__main__":
    main()
