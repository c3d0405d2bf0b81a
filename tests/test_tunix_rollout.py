"""Our sampler and our scorer beside Tunix's sampler (references/tunix_rollout.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distribution import Sampling
from grpo.rollout.sampler import Rollout, decoding_params, rollout, row_keys
from grpo.training.logprobs import Logprobs
from tests.references import tunix_models, tunix_rollout
from tests.references.tunix_rollout import NEVER, NEW, SEED, STOPS, TEMPERATURE
from tests.test_tunix_losses import small

BOUND = 1e-5  # float32, sums in a different order
GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
UNSTOPPED = (NEVER, NEVER)


def fixture() -> dict[str, np.ndarray]:
    """Everything that Tunix said."""
    return tunix_models.said("tunix_rollout")


@functools.cache
def ours(name: str, sampling: Sampling, stops: tuple[int, ...], group: int = 1) -> Rollout:
    """Our completions of the case's prompts, through the cache."""
    module, params = small(name)
    prompt_ids_PI, prompt_mask_PI = (jnp.asarray(x) for x in tunix_rollout.prompts())
    batch = len(prompt_ids_PI) * group
    return rollout(
        module,
        decoding_params(params, None, lora_scale=1.0, dtype=jnp.float32, mesh=None),
        prompt_ids_PI,
        prompt_mask_PI,
        row_keys(SEED, "train", 0, jnp.arange(batch)),
        sampling,
        jnp.array(stops),
        group=group,
        max_new_tokens=NEW,
    )


def scored(name: str, completion_BC: np.ndarray, temperature: float) -> np.ndarray:
    """Our trainer's log-probabilities of the given completions."""
    module, params = small(name)
    prompt_BI, mask_BI = tunix_rollout.prompts()
    ids_BT = np.concatenate([prompt_BI, completion_BC], axis=1)
    mask_BT = np.concatenate([mask_BI, np.ones_like(completion_BC)], axis=1)
    scorer = jax.jit(
        Logprobs(module=module, temperature=temperature, with_entropy=False), static_argnums=3
    )
    return np.asarray(scorer({"params": params}, ids_BT, mask_BT, NEW)[0])


@pytest.mark.parametrize("name", STOPS)
def test_greedy_tokens_and_their_logprobs(name):
    got, stored = ours(name, GREEDY, UNSTOPPED), fixture()
    np.testing.assert_array_equal(got.completion_ids_BC, stored[f"{name}/greedy"])
    for found in ("greedy_logprob", "greedy_forced"):
        gap = np.abs(got.sample_logprob_BC - stored[f"{name}/{found}"])
        assert gap.max() <= BOUND, found
    assert np.all(got.completion_mask_BC) and np.all(got.truncated_B)


@pytest.mark.parametrize("name", STOPS)
def test_the_stop_token_ends_a_completion_and_belongs_to_it(name):
    got, stored = ours(name, GREEDY, STOPS[name]), fixture()
    lengths_B = stored[f"{name}/stopped_lengths"]  # Tunix returns what is before the stop token
    stopped_B = lengths_B < NEW
    assert stopped_B.any() and not stopped_B.all()
    mask_BC = np.arange(NEW) < (lengths_B + stopped_B)[:, None]
    np.testing.assert_array_equal(got.completion_mask_BC, mask_BC)
    np.testing.assert_array_equal(got.completion_ids_BC, stored[f"{name}/greedy"] * mask_BC)
    np.testing.assert_array_equal(got.truncated_B, ~stopped_B)
    last_B = np.asarray(got.completion_ids_BC)[np.arange(len(lengths_B)), lengths_B - ~stopped_B]
    assert np.isin(last_B[stopped_B], STOPS[name]).all()


def test_a_group_is_its_prompt_repeated():
    name = "gemma3_small"
    once, twice = ours(name, GREEDY, STOPS[name]), ours(name, GREEDY, STOPS[name], group=2)
    np.testing.assert_array_equal(
        twice.completion_ids_BC, np.repeat(once.completion_ids_BC, 2, axis=0)
    )


@pytest.mark.parametrize("name", STOPS)
def test_logprobs_of_what_tunix_drew(name):
    stored = fixture()
    got = scored(name, stored[f"{name}/sampled"], TEMPERATURE)
    for found in ("sampled_logprob", "sampled_forced"):
        assert np.abs(got - stored[f"{name}/{found}"]).max() <= BOUND, found
