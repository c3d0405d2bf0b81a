"""Attention of a token to a cache: to the prompt of its group, and to the slots that are filled.

A step of decoding reads every key once for each row, so it should read no more than there is. What
the rows of a group share is read once for all of them. On a CPU slots are read only as far as the
row that has filled most: to the next of a few sizes, each a branch of its own, so a cache may be as
long as it likes. A TPU's compiler would copy the cache for a branch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange

from models.attention import contract, softcap, unseen, weights
from models.cache import LayerCache

Array = jax.Array
FEWEST = 128  # slots that are read at once: fewer would save nothing


class Held(NamedTuple):
    """Which of the keys that a cache holds are visible."""

    own_BTS: Array
    prompt_BTI: Array | None  # of the prompts that rows go on from
    place_BT: Array  # of the tokens that look


def cached_attention(
    attend: Callable[..., Array],
    q_BTNH: Array,
    keys: LayerCache,
    seen: Held,
    cap: float | None,
) -> Array:
    """Attention to a prompt's keys and a row's own; where they are all its own, by this kernel."""

    def as_far_as(end: int) -> Array:
        k_BKHS, v_BKSH = keys.k_BKHS[..., :end], keys.v_BKSH[:, :, :end]
        own_BTS = seen.own_BTS[..., :end]
        if keys.prompt is None:
            return attend(q_BTNH, k_BKHS, v_BKSH, own_BTS, cap)
        held = LayerCache(k_BKHS, v_BKSH, keys.prompt)
        return behind_attention(q_BTNH, held, seen._replace(own_BTS=own_BTS), cap)

    def as_far_as_filled() -> Array:
        branch = jnp.searchsorted(jnp.array(ends[:-1]), jnp.max(seen.place_BT) + 1)
        return jax.lax.switch(branch, [functools.partial(as_far_as, end) for end in ends])

    ends = sizes(keys.v_BKSH.shape[2])
    all_slots = functools.partial(as_far_as, ends[-1])
    if q_BTNH.shape[1] > 1:  # a chunk's own keys stand behind all slots
        return all_slots()
    return jax.lax.platform_dependent(cpu=as_far_as_filled, default=all_slots)


def sizes(slots: int) -> list[int]:
    """How many slots may be read: 128, 256, 512, ..., all."""
    doubled = (FEWEST << k for k in range(slots.bit_length()))
    return [*(size for size in doubled if size < slots), slots]


def behind_attention(q_BTNH: Array, keys: LayerCache, seen: Held, cap: float | None) -> Array:
    """One softmax over a prompt's keys and a row's own: the sum of two averages.

    To the keys of a prompt the rows of its group are further queries of one product.
    """
    assert keys.prompt is not None
    assert seen.prompt_BTI is not None
    q_BKTQH = rearrange(q_BTNH, "B T (K Q) H -> B K T Q H", K=keys.k_BKHS.shape[1])
    rows = {"G": len(q_BTNH) // len(keys.prompt.k_BKHS), "T": q_BTNH.shape[1]}

    def group_product(equation: str, x: Array, y: Array) -> Array:
        x = rearrange(x, "(P G) K T Q X -> P K (G T Q) X", **rows)
        return rearrange(contract(equation, x, y), "P K (G T Q) Y -> (P G) K T Q Y", **rows)

    score_BKTQI = softcap(group_product("PKRH,PKHI->PKRI", q_BKTQH, keys.prompt.k_BKHS), cap)
    score_BKTQS = softcap(contract("BKTQH,BKHS->BKTQS", q_BKTQH, keys.k_BKHS), cap)
    score_BKTQI += unseen(seen.prompt_BTI)
    score_BKTQS += unseen(seen.own_BTS)
    (weight_BKTQI, weight_BKTQS), total_BKTQ1 = weights(score_BKTQI, score_BKTQS)
    dtype = q_BTNH.dtype
    out_BKTQH = group_product("PKRI,PKIH->PKRH", weight_BKTQI.astype(dtype), keys.prompt.v_BKSH)
    out_BKTQH += contract("BKTQS,BKSH->BKTQH", weight_BKTQS.astype(dtype), keys.v_BKSH)
    return rearrange(out_BKTQH / total_BKTQ1, "B K T Q H -> B T (K Q) H").astype(dtype)
