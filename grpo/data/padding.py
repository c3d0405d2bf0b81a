"""Prompts of all lengths as arrays of a few shapes, so that the sampler compiles a few times only.

Rows are padded on the left to the smallest bucket that holds the longest of them. A prompt longer
than the last bucket is an error: cutting it would lose what stands at its start.
"""

from collections.abc import Sequence

import numpy as np


class PromptTooLongError(ValueError):
    """A prompt that no bucket holds."""


def pad_prompts(
    prompts: Sequence[Sequence[int]], buckets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """prompt_ids_PI and prompt_mask_PI of the smallest bucket that fits."""
    if not prompts:
        raise ValueError("no prompts: there is nothing to continue")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} has no tokens: there is nothing to continue")
    lengths = [len(prompt) for prompt in prompts]
    fitting = [bucket for bucket in sorted(buckets) if bucket >= max(lengths)]
    if not fitting:
        row = int(np.argmax(lengths))
        raise PromptTooLongError(
            f"prompt {row} has {lengths[row]} tokens, the longest bucket {max(buckets)}: "
            "drop it, or allow longer prompts"
        )
    mask_PI = np.arange(fitting[0])[None, :] >= fitting[0] - np.array(lengths)[:, None]
    ids_PI = np.zeros(mask_PI.shape, np.int32)
    ids_PI[mask_PI] = np.concatenate([np.asarray(prompt, np.int32) for prompt in prompts])
    return ids_PI, mask_PI.astype(np.int32)
