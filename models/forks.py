"""Rows that fork: a prompt once, and the completions of its group side by side behind it.

    [ prompt (I) | completion 1 (C) | ... | completion G (C) ]           T = I + G·C

A completion sees the prompt and itself, and its positions go on from the prompt's end. All but
attention works token by token, so a group costs I + G·C tokens where rows of their own cost
G·(I + C); the keys of the prompt are repeated, the prompt is not. The rows are the same function of
the parameters, up to the order of sums.

The prompt is padded on the left: its last column is its last token.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from models.attention import visible

Array = jax.Array


class Fork(NamedTuple):
    """How rows fork: G completions of C tokens."""

    group: int
    completion: int


class Seen(NamedTuple):
    """Which keys are visible: to a prompt its own, to a completion those of the prompt and its."""

    prompt_PII: Array
    completion_BCS: Array  # S = I + C


def forked(x_BT: Array, fork: Fork) -> Array:
    """Rows of prompt and completion as one row for each group; the prompts of a group are equal."""
    x_PGT = rearrange(x_BT, "(P G) T -> P G T", G=fork.group)
    completions_PT = rearrange(x_PGT[:, :, -fork.completion :], "P G C -> P (G C)")
    return jnp.concatenate([x_PGT[:, 0, : -fork.completion], completions_PT], axis=1)


def apart(x: Array, fork: Fork, axis: int = 1) -> tuple[Array, Array]:
    """The prompts of forked rows, and the completions [P, ... (G C) ...], along their tokens."""
    length = x.shape[axis] - fork.group * fork.completion
    prompt, completions = jnp.split(x, [length], axis=axis)
    return prompt, completions


def fork_positions(mask_PT: Array, fork: Fork) -> Array:
    """Each token's place in its own sequence; -1 for padding."""
    prompt_PI, completions_PT = apart(mask_PT > 0, fork)
    mask_PGC = rearrange(completions_PT, "P (G C) -> P G C", G=fork.group)
    length_P11 = jnp.sum(prompt_PI, axis=1)[:, None, None]
    place_PGC = length_P11 + jnp.cumsum(mask_PGC, axis=2)
    place_PT = jnp.concatenate(
        [jnp.cumsum(prompt_PI, axis=1), rearrange(place_PGC, "P G C -> P (G C)")], axis=1
    )
    return jnp.where(mask_PT > 0, place_PT - 1, -1)


def seen(position_PT: Array, fork: Fork, window: int | None) -> Seen:
    """What a layer of this window sees."""
    prompt_PI, completions_PT = apart(position_PT, fork)
    position_BC = rearrange(completions_PT, "P (G C) -> (P G) C", G=fork.group)
    prompt_BI = jnp.repeat(prompt_PI, fork.group, axis=0)
    key_BS = jnp.concatenate([prompt_BI, position_BC], axis=1)
    return Seen(
        prompt_PII=visible(prompt_PI, prompt_PI, window),
        completion_BCS=visible(position_BC, key_BS, window),
    )


def fork_attention(
    attend: Callable[..., Array],
    q_PTNH: Array,
    k_PKHT: Array,
    v_PKTH: Array,
    seen: Seen,
    cap: float | None,
) -> Array:
    """Attention of forked rows, by a kernel for rows that do not fork."""
    B, C, _ = seen.completion_BCS.shape
    fork = Fork(B // len(q_PTNH), C)
    behind = {"G": fork.group, "C": C}
    (of_prompt, of_each), (k_PKHI, k_each), (v_PKIH, v_each) = (
        apart(q_PTNH, fork), apart(k_PKHT, fork, axis=3), apart(v_PKTH, fork, axis=2)
    )  # fmt: skip
    out_PINH = attend(of_prompt, k_PKHI, v_PKIH, seen.prompt_PII, cap)
    k_BKHC = rearrange(k_each, "P K H (G C) -> (P G) K H C", **behind)
    v_BKCH = rearrange(v_each, "P K (G C) H -> (P G) K C H", **behind)
    out_BCNH = attend(
        rearrange(of_each, "P (G C) N H -> (P G) C N H", **behind),
        jnp.concatenate([repeat(k_PKHI, "P K H I -> (P G) K H I", G=fork.group), k_BKHC], axis=3),
        jnp.concatenate([repeat(v_PKIH, "P K I H -> (P G) K I H", G=fork.group), v_BKCH], axis=2),
        seen.completion_BCS,
        cap,
    )
    out_PTNH = rearrange(out_BCNH, "(P G) C N H -> P (G C) N H", **behind)
    return jnp.concatenate([out_PINH, out_PTNH], axis=1)


def before_each(hidden_PTD: Array, fork: Fork) -> Array:
    """hidden_BCD: the states that say what each token of a completion is, the one before it."""
    prompt_PID, completions_PTD = apart(hidden_PTD, fork)
    hidden_PGCD = rearrange(completions_PTD, "P (G C) D -> P G C D", G=fork.group)
    first_PG1D = repeat(prompt_PID[:, -1], "P D -> P G 1 D", G=fork.group)
    hidden_PGCD = jnp.concatenate([first_PG1D, hidden_PGCD[:, :, :-1]], axis=2)
    return rearrange(hidden_PGCD, "P G C D -> (P G) C D")
