"""Pairs of completions as arrays: chosen and rejected of a prompt stand side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grpo.algorithms.preference import Pairs
from grpo.data.examples import Example
from grpo.data.padding import pad_prompts
from grpo.data.templates import Template, completion_ids, prompt_ids
from models.tokenizer import Tokenizer


class Tokens(NamedTuple):
    """The ids of a preference."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float

    def turned(self) -> "Tokens":
        """With the rejected completion as the chosen one."""
        return self._replace(chosen=self.rejected, rejected=self.chosen)

    @property
    def longest(self) -> int:
        """The length of the longer completion."""
        return max(len(self.chosen), len(self.rejected))


def tokens_of(tokenizer: Tokenizer, preference: Example, template: Template) -> Tokens:
    """The ids of a preference; a rejected completion that was cut off does not end."""
    return Tokens(
        prompt=prompt_ids(tokenizer, preference, template),
        chosen=completion_ids(tokenizer, preference["chosen"]),
        rejected=completion_ids(
            tokenizer, preference["rejected"], is_cut_off=preference.get("cut_off", False)
        ),
        margin=preference["margin"] or 0.0,
    )


def pairs_of(
    tokens: Sequence[Tokens],
    reference_P2: np.ndarray | None,
    *,
    buckets: Sequence[int],
    max_completion: int,
) -> Pairs:
    """The arrays of an update; every completion begins in the same column."""
    rows = [(one.prompt, text) for one in tokens for text in (one.chosen, one.rejected)]
    P, C = len(tokens), max_completion
    ids_BI, mask_BI = pad_prompts([prompt for prompt, _ in rows], buckets)
    ids_BC = np.zeros((2 * P, C), np.int32)
    mask_BC = np.zeros_like(ids_BC)
    for row, (_, completion) in enumerate(rows):
        ids_BC[row, : len(completion)] = completion
        mask_BC[row, : len(completion)] = 1
    chosen_PC = np.float32(mask_BC[::2])
    return Pairs(
        ids_P2T=np.concatenate([ids_BI, ids_BC], axis=1).reshape(P, 2, -1),
        mask_P2T=np.concatenate([mask_BI, mask_BC], axis=1).reshape(P, 2, -1),
        completion_mask_P2C=mask_BC.reshape(P, 2, C),
        ref_logprob_P2=reference_P2,
        margin_P=np.array([one.margin for one in tokens], np.float32),
        moved_P=None,
        share_P=np.full(P, 1 / P, np.float32),
        weight_PC=chosen_PC / chosen_PC.sum(),
    )


def mismatched(tokens: Sequence[Tokens]) -> list[Tokens]:
    """Every prompt with the completions of the next one, which it has nothing to do with."""
    shifted = [*tokens[1:], tokens[0]]
    return [other._replace(prompt=one.prompt) for one, other in zip(tokens, shifted, strict=True)]
