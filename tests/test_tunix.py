"""Our models against arrays that Tunix made of the same weights (references/tunix_models.py)."""

import functools
import json

import jax
import numpy as np
import pytest

from models.gemma import Gemma
from tests.helpers import greedy, logits_of
from tests.references import tunix_layout, tunix_models
from tests.references.recipe import draw

FIXTURE = tunix_models.HERE / "tunix_models.npz"
# float32, different order of sums; Gemma 2's drawn weights make its attention sharp.
BOUND = {"gemma3_kv1": 5e-4, "gemma3_kv2": 5e-4, "gemma2_kv2": 1e-2}


@functools.cache
def reference(name: str):
    """The case's architecture, parameters in our layout, and Tunix's arrays."""
    shapes = json.loads(FIXTURE.with_suffix(".json").read_text())[name]
    params = tunix_layout.params_of(name, draw(shapes, 0, tunix_models.SCALE[name]))
    with np.load(FIXTURE) as arrays:
        found = {k.split("/")[1]: arrays[k] for k in arrays.files if k.startswith(name)}
    return tunix_layout.config_of(name), params, found


@pytest.mark.parametrize("name", tunix_models.CASES)
def test_logits(name):
    config, params, arrays = reference(name)
    ids_BT, mask_BT = tunix_models.rows(name)
    got = logits_of(Gemma(config), {"params": params}, ids_BT, mask_BT)
    gap = np.abs(np.asarray(got) - arrays["logits"])[mask_BT == 1]
    assert np.abs(arrays["logits"]).max() > 1  # else closeness would mean little
    assert gap.max() <= BOUND[name]


@pytest.mark.parametrize("name", tunix_models.CASES)
def test_token_logprobs(name):
    config, params, arrays = reference(name)
    ids_BT = tunix_models.rows(name)[0][:1]
    logits_BTV = logits_of(Gemma(config), {"params": params}, ids_BT, np.ones_like(ids_BT))
    logprob_BTV = np.asarray(jax.nn.log_softmax(logits_BTV))
    got = [logprob_BTV[0, t - 1, ids_BT[0, t]] for t in range(tunix_models.PROMPT, ids_BT.shape[1])]
    assert np.abs(np.array(got) - arrays["logprobs"][0]).max() <= BOUND[name]


@pytest.mark.parametrize("name", tunix_models.CASES)
def test_greedy_tokens(name):
    config, params, arrays = reference(name)
    tokens = greedy(config, params, arrays["prompts"], tunix_models.NEW)
    np.testing.assert_array_equal(tokens, arrays["greedy"])
