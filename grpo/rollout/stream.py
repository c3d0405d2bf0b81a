"""Completions as they are written: the sampler's own loop, let out after every few tokens.

    prefill   compiled for a bucket of prompt lengths
    decode    compiled once beside it: until so many tokens, a number that may change

Tokens and log-probs are those of `rollout` with the same prompts, keys and settings.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.distribution import Sampling
from grpo.rollout.sampler import Decoding, Drawing, decode, prefill
from models.gemma import Gemma

Array = jax.Array

_prefill = functools.partial(jax.jit, static_argnames=("module", "group", "max_new_tokens"))(
    prefill
)


@functools.partial(jax.jit, static_argnames="module", donate_argnames="state")
def _decode(
    module: Gemma,
    variables: Mapping[str, Any],
    state: Decoding,
    drawing: Drawing,
    tokens: Array,
) -> Decoding:
    return decode(module, dict(variables), state, drawing, tokens)


def stream(
    module: Gemma,
    variables: Mapping[str, Any],
    prompt_ids_PI: np.ndarray,
    prompt_mask_PI: np.ndarray,
    key_B: Array,
    sampling: Mapping[str, Any],
    stop_ids: np.ndarray,
    *,
    group: int,
    max_new_tokens: int,
    chunk: int,
) -> Iterator[list[np.ndarray]]:
    """The tokens of every row so far, the one that stops included, after every `chunk` tokens."""
    drawing = Drawing(key_B, Sampling(**sampling), jnp.asarray(stop_ids))
    state = _prefill(
        module, dict(variables), prompt_ids_PI, prompt_mask_PI, drawing, group=group,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    while True:
        ids_BC, length_B = np.asarray(state.ids_BC), np.asarray(state.length_B)
        yield [ids_C[:length] for ids_C, length in zip(ids_BC, length_B, strict=True)]
        drawn = int(state.c)
        if drawn >= max_new_tokens or bool(jnp.all(state.ended_B)):
            return
        until = jnp.int32(min(drawn + chunk, max_new_tokens))
        state = _decode(module, variables, state, drawing, until)
