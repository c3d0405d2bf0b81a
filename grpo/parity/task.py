"""What both sides compute: ids, masks and numbers, drawn from a seed for an architecture.

walk      rows that go through the layers: a full one and a padded one, longer than the window
          where `tokens` allows it
rope      vectors that are rotated at the walk's positions
prompts   ragged ones, for the sampler; each begins with <bos>
batch     two groups of three completions, with log-probs of an old policy and a reference that
          are not the policy's, so that ratios are clipped and the KL is none of 0
rewards   of four groups, for advantages

Every id is above those that have a function. Tunix's Gemma 2 measures its window from positions to
columns, so where a window is passed its rows are padded on the right, and its prompts not at all.
"""

import numpy as np

from models.config import GemmaConfig

FIRST_ID, BOS = 3, 2
PROMPT, NEW = 24, 16  # of the sampler, tokens
PROMPT_LENGTHS = (24, 17, 5)
BATCH_PROMPT, BATCH_NEW = 10, 12  # of the batch
BATCH_PROMPTS = (10, 7, 3, 10, 5, 8)
COMPLETIONS = (12, 7, 1, 9, 12, 0)  # two full ones, one of a token, an empty one
GROUP = 3
TEMPERATURE = 0.9
DRIFT = (0.1, -0.2, 0.0, 0.15, 0.05, 0.0)  # of the old policy, by row
ADVANTAGES = (0.7, -1.3, 0.6, -0.4, -0.6, 1.0)
REWARDS = ((1.0, 3.0, 0.5, 0.0), (2.0, 2.0, 2.0, 2.0), (0.1, -0.7, 0.1, 5.0), (0.0, 0.0, 1.0, 0.0))
STOPS = 3  # of the greedy completions' own tokens, so that some end early


def make_task(config: GemmaConfig, *, seed: int, tokens: int) -> dict[str, np.ndarray]:
    """The arrays by name."""
    random = np.random.RandomState([seed, config.num_layers])

    def ids(rows: int, length: int) -> np.ndarray:
        return random.randint(FIRST_ID, config.vocab_size, (rows, length)).astype(np.int32)

    walk_mask = np.ones((2, tokens), np.int32)
    if config.family == "gemma2":
        walk_mask[1, -tokens // 4 :] = 0
    else:
        walk_mask[1, : tokens // 4] = 0
    lengths = (PROMPT,) * 3 if config.family == "gemma2" else PROMPT_LENGTHS
    prompt_mask = (np.arange(PROMPT) >= PROMPT - np.array(lengths)[:, None]).astype(np.int32)
    prompt_ids = ids(len(lengths), PROMPT)
    prompt_ids[np.arange(len(lengths)), PROMPT - np.array(lengths)] = BOS
    column = np.arange(BATCH_PROMPT + BATCH_NEW)
    start = BATCH_PROMPT - np.array(BATCH_PROMPTS)[:, None]
    end = BATCH_PROMPT + np.array(COMPLETIONS)[:, None]
    batch_mask = ((column >= start) & (column < end)).astype(np.int32)
    rows, drift = len(COMPLETIONS), np.array(DRIFT)[:, None]
    return {
        "walk_ids": ids(2, tokens) * walk_mask,
        "walk_mask": walk_mask,
        "rope": np.asarray(random.standard_normal((2, tokens, 2, config.head_dim)), np.float32),
        "prompt_ids": prompt_ids * prompt_mask,
        "prompt_mask": prompt_mask,
        "batch_ids": ids(rows, BATCH_PROMPT + BATCH_NEW) * batch_mask,
        "batch_mask": batch_mask,
        "old_noise": np.asarray(
            drift + 0.3 * random.standard_normal((rows, BATCH_NEW)), np.float32
        ),
        "ref_noise": np.asarray(0.5 * random.standard_normal((rows, BATCH_NEW)), np.float32),
        "advantages": np.asarray(ADVANTAGES, np.float32),
        "rewards": np.asarray(REWARDS, np.float32),
    }
