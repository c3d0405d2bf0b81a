"""The key/value cache: what decoding remembers of a row.

    k, v        arrays [B, K, H, S] and [B, K, S, H] of each layer, as attention multiplies them.
                A global layer has S = capacity slots, a local layer a ring of S = min(window,
                capacity): older keys are out of its sight and are overwritten.
    length_B    how many tokens each row has seen; its next token has this position.

Position p of a row lives in slot p mod S, so the positions held by every slot follow from
`length_B` alone and padding is never stored. A chunk of several tokens attends to the old slots
beside its own keys and is written after that, since it may overwrite what its first tokens still
see; a single token is written first.
"""

import jax
import jax.numpy as jnp
from flax import struct

from models.config import LOCAL, GemmaConfig

Array = jax.Array


class LayerCache(struct.PyTreeNode):
    """One layer's keys and values."""

    k_BKHS: Array
    v_BKSH: Array


class Cache(struct.PyTreeNode):
    """The layers' slots and the rows' lengths."""

    layers: tuple[LayerCache, ...]
    length_B: Array


def init_cache(config: GemmaConfig, batch: int, capacity: int, dtype: jnp.dtype) -> Cache:
    """An empty cache for rows of at most `capacity` tokens, which the caller must not exceed."""

    def layer(kind: str) -> LayerCache:
        slots = min(config.window, capacity) if kind == LOCAL else capacity
        heads = (batch, config.num_kv_heads)
        return LayerCache(
            k_BKHS=jnp.zeros((*heads, config.head_dim, slots), dtype),
            v_BKSH=jnp.zeros((*heads, slots, config.head_dim), dtype),
        )

    layers = tuple(layer(kind) for kind in config.kinds)
    return Cache(layers=layers, length_B=jnp.zeros((batch,), jnp.int32))


def slot_positions(length_B: Array, slots: int) -> Array:
    """What each slot of a row holds: the last position p < length with p = slot (mod S), or -1."""
    last_B1 = length_B[:, None] - 1
    slot_1S = jnp.arange(slots)[None, :]
    return jnp.maximum(last_B1 - (last_B1 - slot_1S) % slots, -1)


def key_positions(length_B: Array, position_BT: Array, slots: int) -> Array:
    """The positions of the keys that `extend` returns for a chunk at `position_BT`."""
    if position_BT.shape[1] == 1:
        return slot_positions(jnp.maximum(length_B, position_BT[:, 0] + 1), slots)
    return jnp.concatenate([slot_positions(length_B, slots), position_BT], axis=1)


def extend(old: LayerCache, chunk: LayerCache, position_BT: Array) -> tuple[LayerCache, LayerCache]:
    """The keys and values that a chunk attends to, and the layer with the chunk written."""
    slots = old.v_BKSH.shape[2]
    end_B1 = jnp.max(position_BT, axis=1, keepdims=True)
    kept_BT = (position_BT >= 0) & (position_BT > end_B1 - slots)
    slot_BT = jnp.where(kept_BT, position_BT % slots, slots)  # slot S does not exist: dropped
    # Row by row, so that no device has to ask another for its rows.
    write_k = jax.vmap(lambda k_KHS, slot_T, new: k_KHS.at[:, :, slot_T].set(new, mode="drop"))
    write_v = jax.vmap(lambda v_KSH, slot_T, new: v_KSH.at[:, slot_T].set(new, mode="drop"))
    written = LayerCache(
        k_BKHS=write_k(old.k_BKHS, slot_BT, chunk.k_BKHS),
        v_BKSH=write_v(old.v_BKSH, slot_BT, chunk.v_BKSH),
    )
    if position_BT.shape[1] == 1:
        return written, written
    beside = LayerCache(
        k_BKHS=jnp.concatenate([old.k_BKHS, chunk.k_BKHS], axis=3),
        v_BKSH=jnp.concatenate([old.v_BKSH, chunk.v_BKSH], axis=2),
    )
    return beside, written
