"""The cache: what each slot holds, and decoding equal to the full forward at every step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.cache import LayerCache, extend, init_cache, key_positions, slot_positions
from models.gemma import Gemma, unembed, unstack
from tests.helpers import TINY, hidden, logits_of, tiny_ids, tiny_params

LENGTH = 27  # more than three windows of 8


def test_what_slots_hold():
    want = [
        [-1, -1, -1, -1],  # nothing yet
        [0, 1, -1, -1],
        [0, 1, 2, 3],  # full
        [4, 5, 2, 3],  # the two oldest overwritten
        [8, 9, 10, 7],
    ]
    np.testing.assert_array_equal(slot_positions(jnp.array([0, 2, 4, 6, 11]), 4), want)


def test_sizes_of_rings_and_full_layers():
    cache = init_cache(TINY["gemma3"], 3, 20, jnp.bfloat16)
    sizes = (8, 8, 8, 8, 8, 20, 8)
    assert [layer.k_BKHS.shape for layer in cache.layers] == [(3, 2, 16, n) for n in sizes]
    assert [layer.v_BKSH.shape for layer in cache.layers] == [(3, 2, n, 16) for n in sizes]
    assert {x.dtype for x in jax.tree.leaves(cache.layers)} == {jnp.dtype(jnp.bfloat16)}
    short = init_cache(TINY["gemma3"], 3, 5, jnp.float32)  # less than a window
    assert {layer.v_BKSH.shape[2] for layer in short.layers} == {5}


def numbered(*positions):
    """A chunk whose keys are their own positions, so that slots show what was written."""
    position_BT = jnp.array([positions])
    return filled(jnp.asarray(position_BT, jnp.float32)), position_BT


def filled(value_BS):
    """A layer of one head of width 1 with these numbers as keys and values."""
    return LayerCache(k_BKHS=value_BS[:, None, None, :], v_BKSH=value_BS[:, None, :, None])


def test_writing_skips_padding_and_keeps_the_latest():
    empty = filled(jnp.full((1, 4), -5.0))
    chunk, position = numbered(-1, 0, -1, 1)
    _, layer = extend(empty, chunk, position)
    np.testing.assert_array_equal(layer.k_BKHS[0, 0, 0], [0, 1, -5, -5])
    chunk, position = numbered(2, 3, 4, 5, 6, 7, 8, -1)  # longer than the ring
    keys, layer = extend(layer, chunk, position)
    np.testing.assert_array_equal(layer.v_BKSH[0, 0, :, 0], [8, 5, 6, 7])
    # the chunk attends to the old slots and to all of itself
    np.testing.assert_array_equal(
        key_positions(jnp.array([2]), position, 4)[0], [0, 1, -1, -1, 2, 3, 4, 5, 6, 7, 8, -1]
    )
    assert keys.k_BKHS.shape[3] == keys.v_BKSH.shape[2] == 4 + 8
    chunk, position = numbered(9)
    keys, layer = extend(layer, chunk, position)
    np.testing.assert_array_equal(layer.k_BKHS[0, 0, 0], [8, 9, 6, 7])
    np.testing.assert_array_equal(key_positions(jnp.array([9]), position, 4)[0], [8, 9, 6, 7])
    _, still = extend(layer, *numbered(-1))  # a padded single token
    np.testing.assert_array_equal(still.k_BKHS, layer.k_BKHS)


def rows():
    """A full row, a left-padded one, one padded on both sides; decoding goes on after column 12."""
    ids = tiny_ids(3, LENGTH)
    mask = np.ones_like(ids)
    mask[1, :5] = 0
    mask[2, :2] = mask[2, 9:12] = 0
    return ids, mask


@functools.cache
def full(family):
    ids, mask = rows()
    return np.asarray(logits_of(Gemma(TINY[family]), {"params": tiny_params(family)}, ids, mask))


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(
    "chunks", [(12,), (5, 7), (1, 10, 1)], ids=["one", "two", "past the window at once"]
)
def test_cached_equals_full_at_every_step(family, chunks):
    config, (ids, mask) = TINY[family], rows()
    variables = {"params": unstack(tiny_params(family))}
    cache, got, start = init_cache(config, 3, LENGTH, jnp.float32), [], 0
    for size in (*chunks, *[1] * (LENGTH - 12)):
        part = slice(start, start + size)
        hidden_BTD, cache = hidden(Gemma(config), variables, ids[:, part], mask[:, part], cache)
        got.append(unembed(config, variables["params"], hidden_BTD))
        start += size
    gap = np.abs(np.concatenate(got, axis=1) - full(family))[mask == 1]
    assert np.abs(full(family)).max() > 3
    assert gap.max() <= 1e-5
    np.testing.assert_array_equal(cache.length_B, mask.sum(1))


def test_rows_may_end_while_others_go_on():
    """A row whose token is masked stays as it is."""
    config, (ids, _) = TINY["gemma3"], rows()
    variables = {"params": tiny_params("gemma3")}
    cache = init_cache(config, 3, LENGTH, jnp.float32)
    _, cache = hidden(Gemma(config), variables, ids[:, :10], np.ones((3, 10), np.int32), cache)
    _, after = hidden(Gemma(config), variables, ids[:, 10:11], np.array([[1], [0], [1]]), cache)
    np.testing.assert_array_equal(after.length_B, [11, 10, 11])
    for old, new in zip(cache.layers, after.layers, strict=True):
        np.testing.assert_array_equal(old.k_BKHS[1], new.k_BKHS[1])
        assert not np.array_equal(old.k_BKHS[0], new.k_BKHS[0])
