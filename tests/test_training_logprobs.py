"""Log-probs of many rows in parts: the same numbers, in the same order."""

import jax
import numpy as np
import pytest

from grpo.training.logprobs import Logprobs, logprobs_of_rows
from models.gemma import Gemma
from tests.helpers import SHALLOW, left_padded, shallow_params, tiny_ids

C = 4


def rows_like(rows=5):
    """Ragged prompts, and completions of ragged lengths."""
    prompt, mask = left_padded([3, 5, 1, 4, 2][:rows], 5)
    own = np.arange(C)[None, :] < np.array([4, 2, 3, 1, 4])[:rows, None]
    ids = np.concatenate([prompt, tiny_ids(rows, C, seed=1)], axis=1)
    return ids, np.concatenate([mask, own], axis=1).astype(np.int32)


@pytest.fixture(scope="module")
def whole():
    """All rows at once."""
    scorer = Logprobs(module=Gemma(SHALLOW), temperature=0.7, with_entropy=False)
    score = jax.jit(scorer, static_argnums=3)
    return scorer, np.asarray(score({"params": shallow_params()}, *rows_like(), C)[0])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_change_nothing(whole, parts):
    """Five rows in 2 and 3 parts are uneven: what is filled up is left out again."""
    scorer, wanted = whole
    got = logprobs_of_rows(
        {"params": shallow_params()}, *rows_like(), logprobs=scorer, completion=C, parts=parts
    )
    assert got.shape == (5, C)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(wanted[:, None] - wanted[None]).max(axis=-1)[~np.eye(5, dtype=bool)].min() > 0.1
