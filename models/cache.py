"""The key/value cache: what decoding remembers of a row.

    k, v        arrays [B, K, H, S] and [B, K, S, H] of each layer, as attention multiplies them.
                A global layer has S = capacity slots, a local layer a ring of S = min(window,
                capacity): older keys are out of its sight and are overwritten.
    length_B    how many tokens each row's slots have taken.

Token n of a row, its place, lives in slot n mod S, so what every slot holds follows from `length_B`
alone and padding is never stored. A chunk of several tokens attends to the old slots beside its own
keys and is written after that, since it may overwrite what its first tokens still see; a single
token is written first.

The rows of a group may go on from one prompt (`Prompt`): its keys are there once, in the order of
its columns, padding included, and the slots take what comes after them.
"""

import jax
import jax.numpy as jnp
from flax import struct

from models.config import LOCAL, GemmaConfig

Array = jax.Array


class LayerCache(struct.PyTreeNode):
    """One layer's keys and values, and those of the prompts before them."""

    k_BKHS: Array
    v_BKSH: Array
    prompt: "LayerCache | None" = None  # PKHI, PKIH: B = P·G rows go on from P prompts


class Prompt(struct.PyTreeNode):
    """Prompts that were read: their keys, and where these stand; -1 for padding."""

    layers: tuple[LayerCache, ...]
    position_PI: Array


class Cache(struct.PyTreeNode):
    """The layers' slots and the rows' lengths."""

    layers: tuple[LayerCache, ...]
    length_B: Array
    prompt_position_PI: Array | None = None

    @property
    def start_B(self) -> Array:
        """The position of each row's first token that is no prompt's."""
        if self.prompt_position_PI is None:
            return jnp.zeros_like(self.length_B)
        return jnp.max(self.prompt_position_BI, axis=1) + 1

    @property
    def prompt_position_BI(self) -> Array:
        """Where the keys of each row's prompt stand."""
        assert self.prompt_position_PI is not None
        group = len(self.length_B) // len(self.prompt_position_PI)
        return jnp.repeat(self.prompt_position_PI, group, axis=0)


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


def behind(prompt: Prompt, config: GemmaConfig, rows: int, capacity: int) -> Cache:
    """A cache for so many rows, which go on from these prompts for `capacity` tokens at most."""

    def layer(kind: str, slots: LayerCache, read: LayerCache) -> LayerCache:
        if kind == LOCAL:  # the columns before are out of sight
            w = config.window
            read = LayerCache(read.k_BKHS[..., -w:], read.v_BKSH[:, :, -w:])
        return slots.replace(prompt=read)

    empty = init_cache(config, rows, capacity, prompt.layers[0].k_BKHS.dtype)
    layers = map(layer, config.kinds, empty.layers, prompt.layers)
    return empty.replace(layers=tuple(layers), prompt_position_PI=prompt.position_PI)


def stored(prompt: Prompt, config: GemmaConfig, more: int = 0) -> Cache:
    """A cache whose slots hold these prompts, with room for so many more tokens."""
    prompts, columns = prompt.position_PI.shape
    empty = init_cache(config, prompts, columns + more, prompt.layers[0].k_BKHS.dtype)
    layers = [
        write(slots, read, prompt.position_PI)
        for slots, read in zip(empty.layers, prompt.layers, strict=True)
    ]
    return Cache(tuple(layers), length_B=jnp.max(prompt.position_PI, axis=1) + 1)


def slot_positions(length_B: Array, slots: int) -> Array:
    """What each slot of a row holds: the last place p < length with p = slot (mod S), or -1."""
    last_B1 = length_B[:, None] - 1
    slot_1S = jnp.arange(slots)[None, :]
    return jnp.maximum(last_B1 - (last_B1 - slot_1S) % slots, -1)


def key_positions(length_B: Array, place_BT: Array, slots: int) -> Array:
    """The places of the keys that `extend` returns for a chunk at `place_BT`."""
    if place_BT.shape[1] == 1:
        return slot_positions(jnp.maximum(length_B, place_BT[:, 0] + 1), slots)
    return jnp.concatenate([slot_positions(length_B, slots), place_BT], axis=1)


def write(old: LayerCache, chunk: LayerCache, place_BT: Array) -> LayerCache:
    """The layer with a chunk in its slots, or of a long one the end that they hold."""
    slots = old.v_BKSH.shape[2]
    end_B1 = jnp.max(place_BT, axis=1, keepdims=True)
    kept_BT = (place_BT >= 0) & (place_BT > end_B1 - slots)
    slot_BT = jnp.where(kept_BT, place_BT % slots, slots)  # slot S does not exist: dropped
    # Row by row, so that no device has to ask another for its rows.
    write_k = jax.vmap(lambda k_KHS, slot_T, new: k_KHS.at[:, :, slot_T].set(new, mode="drop"))
    write_v = jax.vmap(lambda v_KSH, slot_T, new: v_KSH.at[:, slot_T].set(new, mode="drop"))
    return old.replace(
        k_BKHS=write_k(old.k_BKHS, slot_BT, chunk.k_BKHS),
        v_BKSH=write_v(old.v_BKSH, slot_BT, chunk.v_BKSH),
    )


def extend(old: LayerCache, chunk: LayerCache, place_BT: Array) -> tuple[LayerCache, LayerCache]:
    """The keys and values that a chunk attends to, and the layer with the chunk written."""
    written = write(old, chunk, place_BT)
    if place_BT.shape[1] == 1:
        return written, written
    beside = old.replace(
        k_BKHS=jnp.concatenate([old.k_BKHS, chunk.k_BKHS], axis=3),
        v_BKSH=jnp.concatenate([old.v_BKSH, chunk.v_BKSH], axis=2),
    )
    return beside, written
