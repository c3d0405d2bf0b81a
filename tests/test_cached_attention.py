"""Attention to a cache: beside a float64 softmax over all keys, reading no more than is there."""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import ATTENTION
from models.cache import LayerCache, Prompt, behind, init_cache, stored
from models.cached_attention import Held, cached_attention, sizes
from models.gemma import Gemma, unembed, unstack
from tests.helpers import TINY, left_padded, logits_of, tiny_ids, tiny_params

P, G, K, Q, H, COLUMNS = 2, 3, 2, 2, 8, 5
B = P * G


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def read(module, variables, ids, mask):
    """The hidden states of prompts, and their keys."""
    hidden_PID, kept = module.apply(variables, ids, mask, keep=True)
    return hidden_PID, cast(Prompt, kept)


def by_hand(q_BTNH, keys, seen, cap):
    """Row by row and head by head, in float64."""
    out = np.zeros(q_BTNH.shape)
    for b, t, n in np.ndindex(q_BTNH.shape[:3]):
        k = np.asarray(keys.k_BKHS, np.float64)[b, n // Q].T
        v = np.asarray(keys.v_BKSH, np.float64)[b, n // Q]
        visible = np.asarray(seen.own_BTS)[b, t]
        if keys.prompt is not None:
            k = np.concatenate([np.asarray(keys.prompt.k_BKHS)[b // G, n // Q].T, k])
            v = np.concatenate([np.asarray(keys.prompt.v_BKSH)[b // G, n // Q], v])
            visible = np.concatenate([np.asarray(seen.prompt_BTI)[b, t], visible])
        z = k @ np.asarray(q_BTNH, np.float64)[b, t, n]
        z = cap * np.tanh(z / cap) if cap else z
        weight = np.exp(z - z.max()) * visible
        out[b, t, n] = weight @ v / weight.sum()
    return out


def case(slots, filled, tokens=1):
    """Rows of which the first has filled so many slots, the others fewer, behind ragged prompts."""
    keys = LayerCache(
        random(0, B, K, H, slots), random(1, B, K, slots, H),
        LayerCache(random(2, P, K, H, COLUMNS), random(3, P, K, COLUMNS, H)),
    )  # fmt: skip
    place = filled - 1 - 2 * np.arange(B)[:, None] + np.arange(1 - tokens, 1)[None, :]
    own = np.arange(slots)[None, None, :] <= place[:, :, None]
    prompt = np.ones((B, tokens, COLUMNS), bool)
    prompt[G:, :, :2] = False
    seen = Held(jnp.asarray(own), jnp.asarray(prompt), jnp.asarray(place))
    return random(4, B, tokens, K * Q, H), keys, seen


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize(("slots", "tokens"), [(20, 1), (300, 1), (20, 3)])
def test_rows_behind_prompts(slots, tokens, cap):
    q, keys, seen = case(slots, filled=17 if tokens == 1 else slots, tokens=tokens)
    got = cached_attention(ATTENTION["einsum"], q, keys, seen, cap)
    np.testing.assert_allclose(got, by_hand(q, keys, seen, cap), atol=2e-6)


@pytest.mark.parametrize("kernel", ATTENTION)
def test_rows_that_hold_their_prompts_go_through_their_kernel(kernel):
    q, keys, seen = case(300, filled=150)
    keys = keys.replace(prompt=None)
    got = cached_attention(ATTENTION[kernel], q, keys, seen, None)
    np.testing.assert_allclose(got, by_hand(q, keys, seen, None), atol=2e-6)


def test_how_far_may_be_read():
    assert sizes(100) == [100]
    assert sizes(128) == [128]
    assert sizes(600) == [128, 256, 512, 600]


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize(("filled", "end"), [(128, 128), (129, 256), (256, 256), (257, 300)])
def test_slots_are_read_up_to_the_next_size_beyond_those_filled(filled, end, with_prompt):
    """What is not a number is not read: as a value it would show in every average."""
    q, keys, seen = case(300, filled)
    if not with_prompt:
        keys = keys.replace(prompt=None)
    attend = functools.partial(cached_attention, ATTENTION["einsum"], jnp.asarray(q))
    last = jnp.arange(300)[None, None, :, None]
    beyond = keys.replace(v_BKSH=jnp.where(last >= end, jnp.nan, keys.v_BKSH))
    np.testing.assert_array_equal(attend(beyond, seen, None), attend(keys, seen, None))
    within = keys.replace(v_BKSH=jnp.where(last >= end - 1, jnp.nan, keys.v_BKSH))
    assert np.isnan(attend(within, seen, None)).all()


@functools.cache
def rows():
    """Ragged prompts, the longest beyond a window of 8; two completions of 14 tokens for each."""
    prompt, prompt_mask = left_padded([5, 11, 3], 11)
    return prompt, prompt_mask, tiny_ids(6, 14, seed=3)


@pytest.mark.parametrize("family", TINY)
def test_completions_behind_a_prompt_equal_whole_rows(family):
    """At every step; beyond the window, in which part of the prompt is soon out of sight."""
    config, (prompt, mask, own) = TINY[family], rows()
    variables, module = {"params": unstack(tiny_params(family))}, Gemma(config)
    ids = np.concatenate([np.repeat(prompt, 2, axis=0), own], axis=1)
    whole_mask = np.concatenate([np.repeat(mask, 2, axis=0), np.ones_like(own)], axis=1)
    want = np.asarray(logits_of(module, {"params": tiny_params(family)}, ids, whole_mask))

    @jax.jit
    def step(ids_B1, cache):
        hidden_B1D, cache = module.apply(variables, ids_B1, jnp.ones_like(ids_B1), cache)
        return unembed(config, variables["params"], hidden_B1D)[:, 0], cache

    _, kept = read(module, variables, prompt, mask)
    cache, got = behind(kept, config, rows=6, capacity=own.shape[1]), []
    for c in range(own.shape[1]):
        logits, cache = step(own[:, c : c + 1], cache)
        got.append(logits)
    np.testing.assert_allclose(np.stack(got, axis=1), want[:, -own.shape[1] :], atol=1e-5)
    rings = {min(config.window, own.shape[1]), own.shape[1]}
    assert {layer.k_BKHS.shape[3] for layer in cache.layers} == rings
    columns = {min(config.window, prompt.shape[1]), prompt.shape[1]}
    heads = (3, config.num_kv_heads, config.head_dim)
    prompts = [layer.prompt for layer in cache.layers if layer.prompt]
    assert {layer.k_BKHS.shape for layer in prompts} == {(*heads, n) for n in columns}


def test_a_stored_prompt_is_what_its_tokens_leave_in_an_empty_cache():
    config, (prompt, mask, _) = TINY["gemma3"], rows()
    variables, module = {"params": unstack(tiny_params("gemma3"))}, Gemma(config)
    hidden, kept = read(module, variables, prompt, mask)
    empty = init_cache(config, len(prompt), prompt.shape[1], jnp.float32)
    wanted_hidden, wanted = module.apply(variables, prompt, mask, empty)
    np.testing.assert_allclose(hidden[mask == 1], wanted_hidden[mask == 1], atol=1e-5)
    got = stored(kept, config)
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
