"""Gemma 2 and Gemma 3: token ids in, hidden states and logits out.

    x = E[ids] * sqrt(D);   x = layer_l(x) for l < L;   logits = softcap(norm(x) Eᵀ)

with one embedding E for both ends.

The layers' parameters are stacked along a leading axis L and the depth is one `lax.scan`, with a
flag beside each layer that says whether it is local. Given a cache, the depth is a Python loop
instead, because rings and full-length layers have different shapes; so it is when
`params["layers"]` is a tuple of layers (`unstack`), which decodes faster since no layer has to be
cut out of a stack first.

The row mask is 0 for padding. Where it is larger than 1 it numbers the packed examples of a row (1,
2, ... from left to right), which then do not see each other; with a cache or a fork it is 0 or 1.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.attention import contract, softcap, visible
from models.cache import Cache, LayerCache, Prompt, key_positions
from models.cached_attention import Held
from models.config import GLOBAL, LOCAL, GemmaConfig
from models.forks import Fork, fork_positions, seen
from models.layers import PRODUCT, Block, RMSNorm, View, init_weight, rope_angles, rotation
from models.sharding import shard_rows

Array = jax.Array
Params = Any
REMAT = {
    "none": lambda f: f,
    "dots": functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(PRODUCT)
    ),
    "full": jax.checkpoint,
}


def row_positions(mask_BT: Array) -> Array:
    """Each token's place among the tokens of its own example; -1 for padding."""
    count_BT = jnp.cumsum(mask_BT > 0, axis=1)
    latest_BT = jax.lax.cummax(mask_BT, axis=1)
    before_BT = jnp.pad(latest_BT, ((0, 0), (1, 0)))[:, :-1]
    start_BT = jax.lax.cummax(jnp.where(mask_BT > before_BT, count_BT, 0), axis=1)
    return jnp.where(mask_BT > 0, count_BT - start_BT, -1)


def views(
    config: GemmaConfig, mask_BT: Array, cache: Cache | None, fork: Fork | None = None
) -> dict[str, View]:
    """Positions, rotations and visible keys for the layers of each kind."""
    place_BT = fork_positions(mask_BT, fork) if fork else row_positions(mask_BT)
    position_BT, layers = place_BT, {}
    if cache is not None:
        place_BT = jnp.where(mask_BT > 0, place_BT + cache.length_B[:, None], -1)
        position_BT = jnp.where(mask_BT > 0, place_BT + cache.start_B[:, None], -1)
        layers = dict(zip(config.kinds, cache.layers, strict=True))

    def view(kind: str, layer: LayerCache | None) -> View:
        is_local = kind == LOCAL
        theta = config.local_theta if is_local else config.global_theta
        factor = 1.0 if is_local else config.global_rope_factor
        window = config.window if is_local else None
        if fork:
            visible_BTS = seen(position_BT, fork, window)
        elif cache is not None and layer is not None:
            key_place_BS = key_positions(cache.length_B, place_BT, layer.v_BKSH.shape[2])
            prompt_BTI = None
            if layer.prompt is not None:
                prompt_BI = cache.prompt_position_BI[:, -layer.prompt.v_BKSH.shape[2] :]
                prompt_BTI = visible(position_BT, prompt_BI, window)
            visible_BTS = Held(visible(place_BT, key_place_BS, window), prompt_BTI, place_BT)
        else:
            visible_BTS = visible(position_BT, position_BT, window, mask_BT)
        angle = rope_angles(position_BT, config.head_dim, theta, factor)
        return View(place_BT, rotation(angle), visible_BTS)

    return {kind: view(kind, layers.get(kind)) for kind in (LOCAL, GLOBAL)}


class Embedder(nn.Module):
    """E[ids] * sqrt(D), in the compute dtype, to which the factor is rounded."""

    config: GemmaConfig
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids_BT: Array) -> Array:
        shape = (self.config.vocab_size, self.config.width)
        table_VD = self.param("table", init_weight, shape, self.param_dtype)
        factor = jnp.asarray(self.config.width**0.5, self.dtype)
        return table_VD[ids_BT].astype(self.dtype) * factor


class Gemma(nn.Module):
    """The text tower; `lora_scale` is that of the adapter in the `lora` collection."""

    config: GemmaConfig
    dtype: Any = jnp.float32  # of activations and cache
    param_dtype: Any = jnp.float32
    lora_scale: float = 0.0
    attention: str = "einsum"
    remat: str = "dots"
    unroll: int = 1  # layers in one step of the scan
    mesh: jax.sharding.Mesh | None = None

    @nn.compact
    def __call__(
        self,
        ids_BT: Array,
        mask_BT: Array,
        cache: Cache | None = None,
        fork: Fork | None = None,
        *,
        keep: bool = False,
    ) -> tuple[Array, Cache | Prompt | None]:
        """The hidden states (for `unembed`), and the cache with this chunk in it.

        Without a cache, `keep` gives the chunk's own keys, for rows that go on from it.
        """
        config = self.config
        view, remat = views(config, mask_BT.astype(jnp.int32), cache, fork), REMAT[self.remat]
        block = Block(config, self.param_dtype, self.lora_scale, self.attention, parent=None)
        x_BTD = Embedder(config, self.dtype, self.param_dtype, name="embedder")(ids_BT)
        x_BTD = shard_rows(x_BTD, self.mesh)
        if self.is_initializing():
            self.param("layers", self.init_layers, block, x_BTD, view[LOCAL])
        layers = {
            "params": self.get_variable("params", "layers"),
            "lora": self.get_variable("lora", "layers", {}),
        }

        def run_layer(x_BTD: Array, layer: Params, view: View, cache: LayerCache | None = None):
            x_BTD, cache = cast(tuple, block.apply(layer, x_BTD, view, cache))
            return shard_rows(x_BTD, self.mesh), cache

        def scan_layer(x_BTD: Array, layer: tuple[Params, Array]):
            variables, is_local = layer
            here = jax.tree.map(
                functools.partial(jax.lax.select, is_local), view[LOCAL], view[GLOBAL]
            )
            return run_layer(x_BTD, variables, here)[0], None

        kept = None
        if cache is None and not keep and not isinstance(layers["params"], tuple):
            is_local_L = jnp.array([kind == LOCAL for kind in config.kinds])
            step = remat(scan_layer)
            x_BTD, _ = jax.lax.scan(step, x_BTD, (layers, is_local_L), unroll=self.unroll)
        else:
            old = (None,) * config.num_layers if cache is None else cache.layers
            new = []
            for i, kind in enumerate(config.kinds):
                layer = {name: layer_at(stack, i) for name, stack in layers.items()}
                x_BTD, layer_cache = remat(run_layer)(x_BTD, layer, view[kind], old[i])
                new.append(layer_cache)
            if cache is not None:
                length_B = cache.length_B + jnp.sum(mask_BT > 0, axis=1, dtype=jnp.int32)
                kept = cache.replace(layers=tuple(new), length_B=length_B)
            elif keep:
                kept = Prompt(tuple(new), view[LOCAL].place_BT)
        norm = RMSNorm(config.norm_eps, self.param_dtype, name="final_norm")
        return norm(x_BTD), kept

    def init_layers(self, key: Array, block: Block, x_BTD: Array, view: View) -> Params:
        """Every layer's parameters, stacked."""
        keys_L = jax.random.split(key, self.config.num_layers)
        return jax.vmap(lambda key: block.init(key, x_BTD, view)["params"])(keys_L)


def layer_at(layers: Params, i: int) -> Params:
    """Layer i of a tuple of layers, or of one stack of them."""
    return layers[i] if isinstance(layers, tuple) else jax.tree.map(lambda x: x[i], layers)


def unstack(params: Params) -> Params:
    """The same parameters (or adapter) with one subtree per layer instead of one stack of them."""
    layers = params["layers"]
    depth = jax.tree.leaves(layers)[0].shape[0]
    return {**params, "layers": tuple(layer_at(layers, i) for i in range(depth))}


def unembed(config: GemmaConfig, params: Params, hidden_BTD: Array) -> Array:
    """logits_BTV in float32, from the same table that embeds."""
    return logits_by(config, params["embedder"]["table"], hidden_BTD)


def logits_by(config: GemmaConfig, table_VD: Array, hidden: Array) -> Array:
    """The logits [..., V] of hidden states [..., D], for a table or some of its rows."""
    logits = contract("...D,VD->...V", hidden, table_VD.astype(hidden.dtype))
    return softcap(logits, config.logit_softcap)


def init_params(config: GemmaConfig, key: Array, dtype: Any) -> Params:
    """Random parameters of the published initial spread; under `jax.eval_shape`, their shapes."""
    ids_BT = jnp.zeros((1, 1), jnp.int32)
    return Gemma(config, dtype, dtype).init(key, ids_BT, jnp.ones_like(ids_BT))["params"]


@functools.cache
def param_shapes(config: GemmaConfig, dtype: Any = jnp.float32) -> Params:
    """The parameters as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), dtype))
