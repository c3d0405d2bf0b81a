"""How likely a model finds each of a few words next: one pass over the prompts, nothing sampled."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from grpo.training.parts import in_parts
from models.gemma import Gemma, unembed

Array = jax.Array
Tree = Any


@functools.partial(jax.jit, static_argnames=("module", "choices", "parts"))
def choices_of_rows(
    variables: dict[str, Tree],
    ids_BT: Array,
    mask_BT: Array,
    *,
    module: Gemma,
    choices: tuple[tuple[int, ...], ...],
    parts: int,
) -> Array:
    """logprob_BK of K words, each of any of its tokens, after rows that are padded on the left."""

    def one(ids_BT: Array, mask_BT: Array) -> Array:
        hidden_BTD, _ = module.apply(variables, ids_BT, mask_BT)
        logits_B1V = unembed(module.config, variables["params"], hidden_BTD[:, -1:])
        logprob_BV = jax.nn.log_softmax(logits_B1V[:, 0].astype(jnp.float32))
        each = [jax.nn.logsumexp(logprob_BV[:, jnp.array(ids)], axis=1) for ids in choices]
        return jnp.stack(each, axis=1)

    return in_parts(one, ids_BT, mask_BT, parts=parts)
