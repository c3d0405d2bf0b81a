"""Supervised examples as rows of tokens, one to a row or several.

    one      prompt on the left of its place, target behind it      mask 1
    packed   prompt, target, prompt, target, ... first fit          mask 1, 1, 2, 2, ...

A mask above 1 numbers the examples of a row, which then do not see each other (models/gemma.py).
Only targets weigh in the loss; every one of their tokens counts the same, the end of the turn too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.padding import pad_prompts

Pair = tuple[list[int], list[int]]  # the tokens of a prompt, and of its target


Array = Any  # NumPy's, and JAX's inside of a loss


class Rows(NamedTuple):
    """Rows of tokens; `weight_BC` is of the last C tokens of each row."""

    ids_BT: Array
    mask_BT: Array
    weight_BC: Array


def one_each(pairs: Sequence[Pair], buckets: Sequence[int], max_target: int) -> Rows:
    """A row per example; every target begins in the same column."""
    ids_BI, mask_BI = pad_prompts([prompt for prompt, _ in pairs], buckets)
    ids_BC = np.zeros((len(pairs), max_target), np.int32)
    mask_BC = np.zeros_like(ids_BC)
    for row, (_, target) in enumerate(pairs):
        ids_BC[row, : len(target)] = target
        mask_BC[row, : len(target)] = 1
    return Rows(
        ids_BT=np.concatenate([ids_BI, ids_BC], axis=1),
        mask_BT=np.concatenate([mask_BI, mask_BC], axis=1),
        weight_BC=np.float32(mask_BC) / np.float32(mask_BC.sum()),
    )


def packed(pairs: Iterable[Pair], rows: int, length: int) -> tuple[Rows, int]:
    """`rows` rows filled from a stream of examples, and how many of these were taken.

    An example goes into the first row with room. The one that fits nowhere ends the batch, and
    begins the next: the stream is read in its order, so a number says how far.
    """
    ids_BT = np.zeros((rows, length), np.int32)
    mask_BT, is_target_BT = np.zeros_like(ids_BT), np.zeros_like(ids_BT)
    used, taken = np.zeros(rows, int), 0
    for prompt, target in pairs:
        tokens = [*prompt, *target]
        if len(tokens) > length:  # no batch would ever take it
            raise ValueError(f"example {taken} has {len(tokens)} tokens, a row {length}")
        fitting = np.flatnonzero(used + len(tokens) <= length)
        if not fitting.size:
            break
        row = fitting[0]
        place = slice(used[row], used[row] + len(tokens))
        ids_BT[row, place] = tokens
        mask_BT[row, place] = mask_BT[row].max() + 1
        is_target_BT[row, used[row] + len(prompt) : place.stop] = 1
        used[row] += len(tokens)
        taken += 1
    # No token before it: the first column scores nothing.
    weight_BC = np.float32(is_target_BT[:, 1:]) / np.float32(is_target_BT.sum())
    return Rows(ids_BT, mask_BT, weight_BC), taken
