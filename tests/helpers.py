"""What several test modules share: tiny models, trees, greedy decoding through the cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups
from grpo.algorithms.losses import with_token_weights
from models.cache import init_cache
from models.config import SIZES, GemmaConfig, layer_kinds
from models.gemma import Gemma, init_params, unembed

SMALL = {  # no two sizes are equal by accident
    "vocab_size": 96,
    "width": 48,
    "ffn_width": 80,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "query_scalar": 24,
    "window": 8,
}
# Seven layers, so that the 5:1 pattern repeats and is cut off.
TINY3 = dataclasses.replace(SIZES["gemma3_tiny"], **SMALL, global_rope_factor=8.0)
TINY2 = dataclasses.replace(
    SIZES["gemma2_2b"], **SMALL, num_layers=4, kinds=layer_kinds(4, ("local", "global"))
)
TINY = {"gemma3": TINY3, "gemma2": TINY2}


@functools.cache
def tiny_params(family: str, dtype: str = "float32"):
    """Parameters of spread 0.15, norms included, so that no weight is idle."""
    shapes = jax.eval_shape(lambda: init_params(TINY[family], jax.random.key(0), dtype))
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(0)
    drawn = [jnp.asarray(random.standard_normal(x.shape) * 0.15, x.dtype) for x in leaves]
    return jax.tree.unflatten(structure, drawn)


def tiny_ids(batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Token ids of the tiny vocabulary."""
    return np.random.RandomState(seed).randint(3, 96, (batch, length)).astype(np.int32)


@functools.partial(jax.jit, static_argnames="module")
def hidden(module: Gemma, variables, ids_BT, mask_BT, cache=None):
    """The module's hidden states and cache."""
    return module.apply(variables, ids_BT, mask_BT, cache)


@functools.partial(jax.jit, static_argnames="module")
def logits_of(module: Gemma, variables, ids_BT, mask_BT):
    """The module's logits."""
    hidden_BTD, _ = module.apply(variables, ids_BT, mask_BT)
    return unembed(module.config, variables["params"], hidden_BTD)


def greedy(
    config: GemmaConfig, params, prompt_BI: np.ndarray, new: int, capacity: int | None = None
) -> np.ndarray:
    """The most likely continuation, decoded through a cache of so many places, or just enough."""
    module, (batch, length) = Gemma(config), prompt_BI.shape
    cache = init_cache(config, batch, capacity or length + new, jnp.float32)
    ids, tokens = jnp.asarray(prompt_BI), []
    for _ in range(new):
        hidden_BTD, cache = hidden(module, {"params": params}, ids, jnp.ones_like(ids), cache)
        ids = jnp.argmax(unembed(config, params, hidden_BTD[:, -1:]), axis=-1).astype(jnp.int32)
        tokens.append(np.asarray(ids))
    return np.concatenate(tokens, axis=1)


def assert_trees_equal(left, right) -> None:
    """Same structure, dtypes and bits."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    ):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=str(path))


# Two layers, one of each kind: what needs no depth compiles in a second.
SHALLOW = dataclasses.replace(TINY3, num_layers=2, kinds=("local", "global"))


@functools.cache
def shallow_params(dtype: str = "float32"):
    """The first two layers of the tiny parameters."""
    params = tiny_params("gemma3", dtype)
    return {**params, "layers": jax.tree.map(lambda x: x[:2], params["layers"])}


def left_padded(lengths: list[int], width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """prompt_ids_PI and prompt_mask_PI of random prompts."""
    mask_PI = np.arange(width)[None, :] >= width - np.array(lengths)[:, None]
    return tiny_ids(len(lengths), width, seed) * mask_PI, mask_PI.astype(np.int32)


def weighed(*, limit: int, objective, **arrays) -> Groups:
    """Groups of the arrays that a loss reads, with their weights; others are missing."""
    missing = dict.fromkeys(("ids_BT", "mask_BT", "spread_B"))
    groups = Groups(**{**missing, **arrays})
    return with_token_weights(groups, limit=limit, objective=objective)
