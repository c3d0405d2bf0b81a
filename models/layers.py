"""The pieces of a Gemma layer.

    x <- x + norm(attention(norm(x)))          RMSNorm before and after each sublayer
    x <- x + norm(mlp(norm(x)))                mlp(x) = W_down (gelu(W_gate x) * W_up x)

Norms, rotations and softmax are float32 whatever the compute dtype; every contraction accumulates
and returns float32 and is cast once. Linen only names the parameters; a `Linear` also looks for an
adapter of its own name in the `lora` collection (arXiv:2106.09685).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from models.attention import ATTENTION, contract
from models.cache import LayerCache, extend
from models.cached_attention import Held, cached_attention
from models.config import GemmaConfig
from models.forks import Seen, fork_attention

Array = jax.Array
PRODUCT = "product"  # the name of what a weight's product gives: `remat` may keep it
init_weight = nn.initializers.normal(0.02)  # the `initializer_range` of the published configs


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * (1 + scale), in float32; the stored scale is centred at zero."""

    eps: float
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        gain = jnp.expand_dims(1.0 + scale.astype(jnp.float32), range(x.ndim - 1))
        x32 = x.astype(jnp.float32)
        variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(variance + self.eps) * gain).astype(x.dtype)


def rope_angles(position_BT: Array, head_dim: int, theta: float, factor: float) -> Array:
    """position / factor / theta^(2i / H) for the H/2 rotation planes i (arXiv:2104.09864)."""
    exponent = np.arange(head_dim // 2) * 2 / head_dim
    frequency = jnp.asarray(1 / (factor * theta**exponent), jnp.float32)
    return position_BT.astype(jnp.float32)[:, :, None] * frequency[None, None, :]


class Rotation(struct.PyTreeNode):
    """Cosine and sine [B, T, H/2] of some angles."""

    cos: Array
    sin: Array


def rotation(angle: Array) -> Rotation:
    """The rotation by these angles, made once for the heads of all layers of a kind."""
    return Rotation(jnp.cos(angle), jnp.sin(angle))


def rope(x: Array, by: Rotation) -> Array:
    """Rotates x [B, T, heads, H] in float32; plane i is the dimensions i and i + H/2."""
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Linear(nn.Module):
    """x W, plus lora_scale (x a) b if the `lora` collection has a and b under this layer's name.

    W contracts its first `num_inputs` axes with the last ones of x, as a product of two matrices:
    on CPUs XLA takes twice as long for the gradient of a product with more axes.
    """

    shape: tuple[int, ...]
    param_dtype: jnp.dtype
    lora_scale: float
    num_inputs: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def dot(x, w, axes):
            w = w.reshape(math.prod(w.shape[:axes]), -1).astype(x.dtype)
            return contract("BI,IO->BO", x, w)

        w = self.param("w", init_weight, self.shape, self.param_dtype)
        batch, outputs = x.shape[: -self.num_inputs], self.shape[self.num_inputs :]
        x = x.reshape(math.prod(batch), -1)
        y = dot(x, w, self.num_inputs)
        if self.has_variable("lora", "a"):
            h = dot(x, self.get_variable("lora", "a"), self.num_inputs).astype(x.dtype)
            y = y + self.lora_scale * dot(h, self.get_variable("lora", "b"), 1)
        return checkpoint_name(y.astype(x.dtype), PRODUCT).reshape(*batch, *outputs)


class View(struct.PyTreeNode):
    """Positions, rotations and visible keys, for the layers of one kind."""

    place_BT: Array  # the token's number in the row's own slots; -1 for padding
    rotation: Rotation  # RoPE at this kind's base
    visible_BTS: Array | Seen | Held


class Attention(nn.Module):
    """Grouped-query attention over the chunk's own keys, and the cache's if there is one.

    What comes back beside is the cache with the chunk in it, or the chunk's own keys.
    """

    config: GemmaConfig
    param_dtype: jnp.dtype
    lora_scale: float
    kernel: str

    @nn.compact
    def __call__(
        self, x_BTD: Array, view: View, cache: LayerCache | None
    ) -> tuple[Array, LayerCache]:
        c = self.config
        linear = functools.partial(Linear, param_dtype=self.param_dtype, lora_scale=self.lora_scale)
        norm = functools.partial(RMSNorm, eps=c.norm_eps, param_dtype=self.param_dtype)
        q_BTNH = linear((c.width, c.num_heads, c.head_dim), name="q")(x_BTD)
        k_BTKH = linear((c.width, c.num_kv_heads, c.head_dim), name="k")(x_BTD)
        v_BTKH = linear((c.width, c.num_kv_heads, c.head_dim), name="v")(x_BTD)
        if c.qk_norm:
            q_BTNH, k_BTKH = norm(name="q_norm")(q_BTNH), norm(name="k_norm")(k_BTKH)
        q_BTNH = (rope(q_BTNH, view.rotation) * c.query_scalar**-0.5).astype(x_BTD.dtype)
        k_BTKH = rope(k_BTKH, view.rotation).astype(x_BTD.dtype)
        chunk = LayerCache(
            k_BKHS=rearrange(k_BTKH, "B T K H -> B K H T"),
            v_BKSH=rearrange(v_BTKH, "B T K H -> B K T H"),
        )
        keys, cache = (chunk, chunk) if cache is None else extend(cache, chunk, view.place_BT)
        attend, seen, cap = ATTENTION[self.kernel], view.visible_BTS, c.attention_softcap
        rows = q_BTNH, keys.k_BKHS, keys.v_BKSH
        if isinstance(seen, Seen):
            out_BTNH = fork_attention(attend, *rows, seen, cap)
        elif isinstance(seen, Held):
            out_BTNH = cached_attention(attend, q_BTNH, keys, seen, cap)
        else:
            out_BTNH = attend(*rows, seen, cap)
        return linear((c.num_heads, c.head_dim, c.width), num_inputs=2, name="o")(out_BTNH), cache


class MLP(nn.Module):
    """down(gelu(gate x) * up x), with the tanh form of GELU (arXiv:2002.05202)."""

    config: GemmaConfig
    param_dtype: jnp.dtype
    lora_scale: float

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        linear = functools.partial(Linear, param_dtype=self.param_dtype, lora_scale=self.lora_scale)
        wide = (self.config.width, self.config.ffn_width)
        gate_BTF = jax.nn.gelu(linear(wide, name="gate")(x_BTD), approximate=True)
        up_BTF = linear(wide, name="up")(x_BTD)
        return linear(wide[::-1], name="down")(gate_BTF * up_BTF)


class Block(nn.Module):
    """One layer: attention, then the MLP, each normalised before and after."""

    config: GemmaConfig
    param_dtype: jnp.dtype
    lora_scale: float
    kernel: str

    @nn.compact
    def __call__(
        self, x_BTD: Array, view: View, cache: LayerCache | None = None
    ) -> tuple[Array, LayerCache]:
        norm = functools.partial(RMSNorm, eps=self.config.norm_eps, param_dtype=self.param_dtype)
        common = (self.config, self.param_dtype, self.lora_scale)
        y_BTD = norm(name="pre_attention_norm")(x_BTD)
        y_BTD, cache = Attention(*common, self.kernel, name="attention")(y_BTD, view, cache)
        x_BTD = x_BTD + norm(name="post_attention_norm")(y_BTD)
        y_BTD = MLP(*common, name="mlp")(norm(name="pre_ffw_norm")(x_BTD))
        return x_BTD + norm(name="post_ffw_norm")(y_BTD), cache
