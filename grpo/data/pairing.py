"""Pairs of completions as arrays: chosen and rejected of a prompt stand side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grpo.algorithms.preference import Pairs
from grpo.data.examples import Example
from grpo.data.packing import one_each
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
    P, arrays = len(tokens), one_each(rows, buckets, max_completion)
    ids_P2T, mask_P2T = (x.reshape(P, 2, -1) for x in (arrays.ids_BT, arrays.mask_BT))
    completion_mask_P2C = mask_P2T[:, :, -max_completion:]
    chosen_PC = np.float32(completion_mask_P2C[:, 0])
    return Pairs(
        ids_P2T=ids_P2T,
        mask_P2T=mask_P2T,
        completion_mask_P2C=completion_mask_P2C,
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
