"""Completions by key/value-cached decoding.

    prefill   each prompt once, logits at its last position only
    share     its cache and logits, repeated for the G completions of its group
    decode    draw a token, write it, feed it; until every row has drawn a stop token, or C tokens

A row's tokens depend on its prompt, its key and the settings: not on the rows beside it, nor on how
the batch is cut or spread over devices. Row r of a step draws with the key of (seed,
purpose, step, r), and its token c with fold_in of that and c.

The mask of a completion comes from positions, never from token values: it covers the tokens up to
the first stop token, that one included. Prompts are padded on the left, so a completion starts
where its prompt ends.
"""

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from grpo.algorithms.distribution import Sampling, sample
from models.cache import Cache, Prompt, behind, stored
from models.gemma import Gemma, unembed, unstack
from models.lora import merge
from models.sharding import path_name, shard_cache, shard_rows, shardings

Array = jax.Array
Params = Any
PURPOSES = {
    "train": 1, "evaluate": 2, "pairs": 3, "distill": 4, "traces": 5, "power": 6, "chat": 7,
}  # fmt: skip


class Rollout(NamedTuple):
    """The completions of a batch: row b = p·G + g is completion g of prompt p."""

    ids_BT: Array  # T = I + C: prompts, padded on the left, and completions; 0 beyond the mask
    mask_BT: Array
    completion_mask_BC: Array
    truncated_B: Array  # C tokens and none of them a stop token
    sample_logprob_BC: Array  # under π of grpo/algorithms/distribution.py

    @property
    def completion_ids_BC(self) -> Array:
        """The tokens of the completions."""
        return self.ids_BT[:, -self.completion_mask_BC.shape[1] :]

    @property
    def length_B(self) -> Array:
        """Tokens of each completion, the one that stops included."""
        return self.completion_mask_BC.sum(axis=1)


class Drawing(NamedTuple):
    """What every token of a batch is drawn with."""

    key_B: Array
    sampling: Sampling
    stop_ids: Array


class Decoding(NamedTuple):
    """The loop's state after c tokens."""

    c: Array
    token_B: Array  # the last one drawn, not yet fed
    cache: Cache
    ended_B: Array  # has drawn a stop token
    length_B: Array
    ids_BC: Array
    logprob_BC: Array


def row_keys(seed: int, purpose: str, step: int, rows: ArrayLike) -> Array:
    """key_B: one key per row, from the run's seed, the step and the row's number in the batch.

    What training draws at a step is none of what an evaluation draws there.
    """
    key = jax.random.fold_in(jax.random.key(seed), PURPOSES[purpose])
    key = jax.random.fold_in(key, step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


@functools.partial(jax.jit, static_argnames=("lora_scale", "dtype", "mesh"))
def decoding_params(
    params: Params, adapter: Params | None, *, lora_scale: float, dtype: Any, mesh: Mesh | None
) -> dict[str, Params]:
    """The module's collections as decoding wants them, made once per rollout.

    One array per layer (a decode step would otherwise cut every layer out of its stack), in the
    compute dtype, and whole along the `fsdp` axis: a step reads every weight, and to gather them
    for each token would take thirty times as long as the reading. In float32 the adapter is merged;
    in bfloat16 it stays beside, as the trainer has it: what a young adapter adds to a weight is
    less than bfloat16's spacing there, and most of it would round away.
    """

    def lower(path: tuple, x: Array) -> Array:
        return x if path_name(path).endswith("scale") else x.astype(dtype)  # as the trainer has it

    variables = {"params": params} | ({} if adapter is None else {"lora": adapter})
    variables = jax.tree_util.tree_map_with_path(lower, variables)
    if adapter is not None and dtype == jnp.float32:
        variables = {"params": merge(variables["params"], adapter, lora_scale)}
    variables = {name: unstack(tree) for name, tree in variables.items()}
    if mesh is None:
        return variables
    return jax.lax.with_sharding_constraint(variables, shardings(variables, mesh, ("tp",)))


@functools.partial(jax.jit, static_argnames=("module", "group", "max_new_tokens"))
def rollout(
    module: Gemma,
    variables: dict[str, Params],
    prompt_ids_PI: Array,
    prompt_mask_PI: Array,
    key_B: Array,
    sampling: Sampling,
    stop_ids: Array,
    *,
    group: int,
    max_new_tokens: int,
) -> Rollout:
    """`group` completions of every prompt, of at most `max_new_tokens` tokens each.

    Shapes compile: the bucket of the prompts, the group, the length, the number of stop ids.
    """
    drawing = Drawing(key_B, sampling, stop_ids)
    first = prefill(
        module, variables, prompt_ids_PI, prompt_mask_PI, drawing, group=group,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    end = decode(module, variables, first, drawing, max_new_tokens)
    return laid_out(
        module.mesh, prompt_ids_PI, prompt_mask_PI, end.ids_BC, end.logprob_BC, end.length_B,
        end.ended_B,
    )  # fmt: skip


def laid_out(
    mesh: Mesh | None,
    prompt_ids_PI: Array,
    prompt_mask_PI: Array,
    ids_BC: Array,
    logprob_BC: Array,
    length_B: Array,
    stopped_B: Array,
) -> Rollout:
    """Completions beside the prompts of their groups."""
    group = len(length_B) // len(prompt_ids_PI)
    mask_BC = jnp.arange(ids_BC.shape[1])[None, :] < length_B[:, None]
    ids_BI, mask_BI = (shard_rows(grouped(x, group), mesh) for x in (prompt_ids_PI, prompt_mask_PI))
    return Rollout(
        ids_BT=jnp.concatenate([ids_BI, ids_BC], axis=1),
        mask_BT=jnp.concatenate([mask_BI, mask_BC.astype(jnp.int32)], axis=1),
        completion_mask_BC=mask_BC,
        truncated_B=~stopped_B,
        sample_logprob_BC=logprob_BC,
    )


def prefill(
    module: Gemma,
    variables: dict[str, Params],
    prompt_ids_PI: Array,
    prompt_mask_PI: Array,
    drawing: Drawing,
    *,
    group: int,
    max_new_tokens: int,
) -> Decoding:
    """Reads the prompts, and draws the first token of each completion."""
    mesh, batch = module.mesh, len(prompt_ids_PI) * group

    def share(x: Array) -> Array:
        return shard_rows(grouped(x, group), mesh)

    hidden_PID, prompt = module.apply(variables, prompt_ids_PI, prompt_mask_PI, keep=True)
    logits_PV = last_logits(module, variables, hidden_PID)
    cache = cache_after(module, cast(Prompt, prompt), group, max_new_tokens)
    cache = jax.tree.map(lambda x: shard_cache(x, mesh), cache)
    start = Decoding(
        c=jnp.int32(0),
        token_B=jnp.zeros(batch, jnp.int32),
        cache=cache,
        ended_B=jnp.zeros(batch, bool),
        length_B=jnp.zeros(batch, jnp.int32),
        ids_BC=jnp.zeros((batch, max_new_tokens), jnp.int32),
        logprob_BC=jnp.zeros((batch, max_new_tokens), jnp.float32),
    )
    return draw(start, share(logits_PV), cache, drawing)


def cache_after(module: Gemma, prompt: Prompt, group: int, max_new_tokens: int) -> Cache:
    """What the completions of prompts that were read are written to."""
    config = module.config
    if has_prompts_once(module):
        return behind(prompt, config, len(prompt.position_PI) * group, max_new_tokens)
    return jax.tree.map(lambda x: grouped(x, group), stored(prompt, config, max_new_tokens))


def has_prompts_once(module: Gemma) -> bool:
    """Whether a group has one copy of its prompt's keys, not each row its own.

    Where `tp` does not cut the key heads it cuts the queries of one, and a product of these with
    those of the group would have to gather them, in every layer at every token.
    """
    mesh = module.mesh
    return mesh is None or module.config.num_kv_heads % mesh.shape["tp"] == 0


def decode(
    module: Gemma,
    variables: dict[str, Params],
    state: Decoding,
    drawing: Drawing,
    tokens: int | Array,
) -> Decoding:
    """Draws on, until there are so many tokens or every row has ended."""

    def is_going(state: Decoding) -> Array:
        return (state.c < tokens) & ~jnp.all(state.ended_B)

    def step(state: Decoding) -> Decoding:
        ids_B1 = state.token_B[:, None]
        # Rows that have ended go on with the others: in step, all write the same slot.
        logits_BV, cache = forward(module, variables, ids_B1, jnp.ones_like(ids_B1), state.cache)
        return draw(state, logits_BV, cache, drawing)

    return jax.lax.while_loop(is_going, step, state)


def draw(state: Decoding, logits_BV: Array, cache: Cache, drawing: Drawing) -> Decoding:
    """Token c of every row that has not ended."""
    c, (key_B, sampling, stop_ids) = state.c, drawing
    key_c_B = jax.vmap(jax.random.fold_in, (0, None))(key_B, c)
    token_B, logprob_B = sample(key_c_B, logits_BV, sampling)
    token_B = jnp.where(state.ended_B, 0, token_B)
    logprob_B = jnp.where(state.ended_B, 0.0, logprob_B)
    stops_B = jnp.any(token_B[:, None] == stop_ids[None, :], axis=1)
    write = jax.lax.dynamic_update_slice
    return Decoding(
        c=c + 1,
        token_B=token_B,
        cache=cache,
        ended_B=state.ended_B | stops_B,
        length_B=state.length_B + ~state.ended_B,
        ids_BC=write(state.ids_BC, token_B[:, None], (0, c)),
        logprob_BC=write(state.logprob_BC, logprob_B[:, None], (0, c)),
    )


def forward(
    module: Gemma, variables: dict[str, Params], ids_BT: Array, mask_BT: Array, cache: Cache
) -> tuple[Array, Cache]:
    """The logits after the last of these tokens, and the cache with all of them."""
    hidden_BTD, filled = module.apply(variables, ids_BT, mask_BT, cache)
    return last_logits(module, variables, hidden_BTD), cast(Cache, filled)


def last_logits(module: Gemma, variables: dict[str, Params], hidden_BTD: Array) -> Array:
    """logits_BV after the last column."""
    return unembed(module.config, variables["params"], hidden_BTD[:, -1:])[:, 0]


def grouped(x: Array, group: int) -> Array:
    """Each row as often as its group has completions."""
    return jnp.repeat(x, group, axis=0)
