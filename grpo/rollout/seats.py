"""The completions of `sampler.rollout` with fewer rows in step: who has ended gives up the seat.

    prefill   each prompt once, all but its last token
    seat      S rows decode together. A row that has ended leaves, and the next one that waits
              takes its seat: the keys of its prompt are copied there, and its prompt's last token
              is the first one that it feeds
    close     when none waits any more and half of the seats are empty, the others move together,
              and go on as half as many; `halvings` times

A batch of rows of very different lengths is decoded to the end of its longest row, most of it for
rows that have long ended. Here a step costs what its seats cost. All of it is one program of one
shape for each number of seats: no host is asked between two tokens.

A row's tokens are those of `rollout`: they depend on its prompt, its key and the settings. Its
seat's cache has the row's own length, as every row of a cache has.

On a mesh the rows and seats of the devices along `fsdp` are apart, D desks of N rows and S seats:
each has a queue of its own, and no row moves from one to another.
"""

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from einops import rearrange

from grpo.algorithms.distribution import Sampling, sample
from grpo.rollout.sampler import Rollout, forward, laid_out
from models.cache import Cache, Prompt, init_cache, stored
from models.gemma import Gemma
from models.sharding import shard_cache, shard_rows

Array = jax.Array
Params = Any


class Desks(NamedTuple):
    """What is known at each desk: of its seats, and of its rows."""

    row_DS: Array  # who sits there; N: nobody
    token_DS: Array  # the token to feed
    next_D: Array  # the first row that still waits
    ids_DNC: Array
    logprob_DNC: Array
    length_DN: Array
    stopped_DN: Array  # has drawn a stop token

    @property
    def taken_DS(self) -> Array:
        """The seats in which somebody sits."""
        return self.row_DS < self.length_DN.shape[1]

    @property
    def waiting_D(self) -> Array:
        """The desks at which somebody waits."""
        return self.next_D < self.length_DN.shape[1]


class Prompts(NamedTuple):
    """What a row begins from: the cache of its prompt, and the prompt's last token."""

    cache: Cache
    last_P: Array


@functools.partial(
    jax.jit, static_argnames=("module", "group", "max_new_tokens", "seats", "halvings")
)
def rollout_in_seats(
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
    seats: int,
    halvings: int,
) -> Rollout:
    """`group` completions of every prompt, `seats` of them at a time."""
    (prompts, columns), mesh, C = prompt_ids_PI.shape, module.mesh, max_new_tokens
    desks = desks_of(module, prompts, seats)
    rows, seats = prompts * group // desks, seats // desks
    begin = read(module, variables, prompt_ids_PI, prompt_mask_PI)
    cache = init_cache(module.config, desks * seats, columns + C, module.dtype)
    cache = jax.tree.map(lambda x: shard_cache(x, mesh), cache)
    state = Desks(
        row_DS=jnp.full((desks, seats), rows),
        token_DS=jnp.zeros((desks, seats), jnp.int32),
        next_D=jnp.zeros(desks, jnp.int32),
        ids_DNC=jnp.zeros((desks, rows, C), jnp.int32),
        logprob_DNC=jnp.zeros((desks, rows, C), jnp.float32),
        length_DN=jnp.zeros((desks, rows), jnp.int32),
        stopped_DN=jnp.zeros((desks, rows), bool),
    )
    state = jax.tree.map(lambda x: shard_rows(x, mesh), state)
    key_DN = rearrange(key_B, "(d n) -> d n", d=desks)

    def step(carry: tuple[Desks, Cache]) -> tuple[Desks, Cache]:
        state, cache = carry
        fed_S1 = state.taken_DS.reshape(-1, 1)
        logits_SV, cache = forward(
            module, variables, state.token_DS.reshape(-1, 1), fed_S1.astype(jnp.int32), cache
        )
        state = draw(state, logits_SV, key_DN, sampling, stop_ids)
        return fill(state, cache, begin, group)

    carry = fill(state, cache, begin, group)
    sizes = [seats >> k + 1 for k in range(halvings) if seats >> k + 1]
    for few in (*sizes, 0):

        def is_going(carry: tuple[Desks, Cache], few: int = few) -> Array:
            return jnp.any(carry[0].taken_DS.sum(axis=1) > few)  # while rows wait all are taken

        carry = jax.lax.while_loop(is_going, step, carry)
        if few:
            carry = close(*carry, few)
    end, _ = carry
    return laid_out(
        mesh, prompt_ids_PI, prompt_mask_PI,
        *(
            shard_rows(x.reshape(desks * rows, *x.shape[2:]), mesh)
            for x in (end.ids_DNC, end.logprob_DNC, end.length_DN, end.stopped_DN)
        ),
    )  # fmt: skip


def desks_of(module: Gemma, prompts: int, seats: int) -> int:
    """One for the devices along each place of `fsdp`, if that divides what there is."""
    desks = module.mesh.shape["fsdp"] if module.mesh else 1
    return desks if prompts % desks == 0 and seats % desks == 0 else 1


def read(module: Gemma, variables: dict[str, Params], ids_PI: Array, mask_PI: Array) -> Prompts:
    """The prompts without their last tokens."""
    before = functools.partial(jnp.pad, pad_width=((0, 0), (1, 0)))
    _, kept = module.apply(variables, before(ids_PI[:, :-1]), before(mask_PI[:, :-1]), keep=True)
    return Prompts(stored(cast(Prompt, kept), module.config), ids_PI[:, -1])


def draw(
    state: Desks, logits_SV: Array, key_DN: Array, sampling: Sampling, stop_ids: Array
) -> Desks:
    """The next token of every row that sits; those that have ended leave."""
    limit = state.ids_DNC.shape[2]
    drawn_DS = at_rows(state.length_DN, state.row_DS)
    keys = jax.vmap(jax.random.fold_in)(
        at_rows(key_DN, state.row_DS).reshape(-1), drawn_DS.reshape(-1)
    )
    token_DS, logprob_DS = (
        x.reshape(state.row_DS.shape) for x in sample(keys, logits_SV, sampling)
    )
    stops_DS = jnp.any(token_DS[..., None] == stop_ids[None, None], axis=-1)
    leaves_DS = stops_DS | (drawn_DS + 1 == limit)

    def note(x_N: Array, row_S: Array, *place_and_value: Array) -> Array:
        *place, value_S = place_and_value
        return x_N.at[(row_S, *place)].set(value_S, mode="drop")

    note_DS = jax.vmap(note)
    return state._replace(
        row_DS=jnp.where(leaves_DS, state.length_DN.shape[1], state.row_DS),
        token_DS=token_DS,
        ids_DNC=note_DS(state.ids_DNC, state.row_DS, drawn_DS, token_DS),
        logprob_DNC=note_DS(state.logprob_DNC, state.row_DS, drawn_DS, logprob_DS),
        length_DN=note_DS(state.length_DN, state.row_DS, drawn_DS + 1),
        stopped_DN=note_DS(state.stopped_DN, state.row_DS, stops_DS),
    )


def fill(state: Desks, cache: Cache, begin: Prompts, group: int) -> tuple[Desks, Cache]:
    """Every empty seat is taken by a row that waits at its desk, one after the other."""
    seats, rows = state.row_DS.shape[1], state.length_DN.shape[1]
    prompts = rows // group  # of a desk

    def can_D(state: Desks) -> Array:
        return state.waiting_D & ~jnp.all(state.taken_DS, axis=1)

    def sit(carry: tuple[Desks, Cache]) -> tuple[Desks, Cache]:
        state, cache = carry
        desk = jnp.argmax(can_D(state))
        seat, row = jnp.argmin(state.taken_DS[desk]), state.next_D[desk]
        p, place = desk * prompts + row // group, desk * seats + seat

        def copy(to_S: Array, of_P: Array) -> Array:
            """The slots of a prompt to the first ones of a seat."""
            zero = (0,) * (to_S.ndim - 1)
            prompt = jax.lax.dynamic_slice(of_P, (p, *zero), (1, *of_P.shape[1:]))
            return jax.lax.dynamic_update_slice(to_S, prompt, (place, *zero))

        state = state._replace(
            row_DS=state.row_DS.at[desk, seat].set(row),
            token_DS=state.token_DS.at[desk, seat].set(begin.last_P[p]),
            next_D=state.next_D.at[desk].add(1),
        )
        return state, jax.tree.map(copy, cache, begin.cache)

    return jax.lax.while_loop(lambda carry: jnp.any(can_D(carry[0])), sit, (state, cache))


def close(state: Desks, cache: Cache, seats: int) -> tuple[Desks, Cache]:
    """Those who still sit move to the first seats, and the others are taken away."""
    desks = state.row_DS.shape[0]
    stay_DS = jnp.argsort(~state.taken_DS, axis=1, stable=True)[:, :seats]

    def moved(x: Array) -> Array:
        x = rearrange(x, "(d s) ... -> d s ...", d=desks)
        return rearrange(at_rows(x, stay_DS), "d s ... -> (d s) ...")

    state = state._replace(
        row_DS=at_rows(state.row_DS, stay_DS), token_DS=at_rows(state.token_DS, stay_DS)
    )
    return state, jax.tree.map(moved, cache)


def at_rows(x_DN: Array, place_DS: Array) -> Array:
    """x[d, place[d, s]], desk by desk, so that no device has to ask another."""
    return jax.vmap(lambda x_N, place_S: x_N.at[place_S].get(mode="clip"))(x_DN, place_DS)
