"""Completions of ragged prompts by Tunix 0.1.7's sampler, with their log-probabilities.

    python -m tests.references.tunix_rollout        (pip install -e '.[test,parity]')

writes tunix_rollout.npz beside this file; tests/test_tunix_rollout.py reads it without Tunix, and
tests/parity/test_tunix_losses_live.py runs `run_case` again. Weights and ids are drawn by `recipe`.
"""

import numpy as np

from tests.references.recipe import draw_ids
from tests.references.tunix_models import ARCHITECTURES, COMMON, HERE, IntTokenizer, build

PROMPT, NEW = 10, 14
PROMPT_LENGTHS = (10, 7, 3, 8)
TEMPERATURE, SEED = 0.9, 5  # no token 0 is drawn
NEVER = 1 << 29
# Tokens that some greedy completions of the case come upon, sooner or later, and others never.
STOPS = {"gemma3_kv1": (36, 92), "gemma3_small": (34, 44), "gemma2_small": (19, 42)}


def prompts() -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask, padded on the left; each prompt begins with 2, which Tunix puts there."""
    ids = draw_ids(8, len(PROMPT_LENGTHS), PROMPT, COMMON["num_embed"])
    start = PROMPT - np.array(PROMPT_LENGTHS)[:, None]
    ids[np.arange(len(ids)), start[:, 0]] = 2
    mask = (np.arange(PROMPT) >= start).astype(np.int32)
    return ids * mask, mask


def make_sampler(name: str):
    """Tunix's sampler of a case, and its model."""
    from tunix.generate.sampler import CacheConfig, Sampler

    model, _ = build(name)
    case = ARCHITECTURES[name]
    cache = CacheConfig(
        cache_size=PROMPT + NEW,
        num_layers=case["num_layers"],
        num_kv_heads=case["num_kv_heads"],
        head_dim=case["head_dim"],
    )
    return Sampler(model, IntTokenizer(), cache), model


def texts() -> np.ndarray:
    """The prompts as Tunix takes them: its tokenizer puts the 2 in front."""
    ids, mask = prompts()
    rows = [row[kept == 1][1:] for row, kept in zip(ids, mask, strict=True)]
    return np.array([" ".join(map(str, row)) for row in rows])


def teacher_forced(model, completions: np.ndarray, temperature: float) -> np.ndarray:
    """Tunix's log-probabilities of given completions, as its trainer computes them."""
    import jax.numpy as jnp
    from flax import nnx
    from tunix.rl import common

    return np.asarray(
        common.compute_per_token_logps(
            *nnx.split(model),
            prompt_tokens=jnp.asarray(prompts()[0]),
            completion_tokens=jnp.asarray(completions),
            pad_id=0,
            eos_id=1,
            temperature=temperature,
        )
    )


def run_case(name: str) -> dict[str, np.ndarray]:
    """Tunix's greedy and sampled completions, and how many tokens it returns up to a stop."""
    sampler, model = make_sampler(name)
    common = {"max_generation_steps": NEW, "max_prompt_length": PROMPT, "return_logprobs": True}
    greedy = sampler(texts(), eos_tokens=[NEVER], **common)
    np.testing.assert_array_equal(greedy.padded_prompt_tokens, prompts()[0])
    sampled = sampler(
        texts(), eos_tokens=[NEVER], temperature=TEMPERATURE, top_p=1.0, seed=SEED, **common
    )
    stopped = make_sampler(name)[0](texts(), eos_tokens=list(STOPS[name]), **common)
    greedy_ids, sampled_ids = (np.stack(out.tokens).astype(np.int32) for out in (greedy, sampled))
    return {
        "greedy": greedy_ids,
        "greedy_logprob": np.asarray(greedy.logprobs, np.float32),
        "greedy_forced": teacher_forced(model, greedy_ids, 1.0),
        "sampled": sampled_ids,
        "sampled_logprob": np.asarray(sampled.logprobs, np.float32),
        "sampled_forced": teacher_forced(model, sampled_ids, TEMPERATURE),
        "stopped_lengths": np.array([len(row) for row in stopped.tokens]),
    }


def main() -> None:
    """Writes the fixture."""
    stored = {}
    for name in STOPS:
        stored |= {f"{name}/{key}": value for key, value in run_case(name).items()}
    np.savez_compressed(HERE / "tunix_rollout.npz", **stored)


if __name__ == "__main__":
    main()
