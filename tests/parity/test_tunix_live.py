"""Tunix itself beside us: what tests/test_tunix.py reads from a fixture, computed again.

    pip install -e '.[test,parity]' && pytest tests/parity     (in an environment of its own)

Without Tunix installed these tests skip and say so; `.ci/run` installs it.
"""

import numpy as np
import pytest

from models.gemma import Gemma
from tests.helpers import greedy, logits_of
from tests.references import tunix_layout, tunix_models
from tests.references.recipe import draw
from tests.test_tunix import BOUND, reference

pytest.importorskip("tunix", reason="Tunix is not installed: pip install -e '.[test,parity]'")
# Tunix and what it stands on warn as they please.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=tunix_models.CASES)
def live(request):
    return request.param, *tunix_models.run_case(request.param)


def test_the_fixture_is_what_tunix_says_today(live):
    name, arrays, shapes = live
    _, _, stored = reference(name)
    for key in ("logits", "logprobs"):
        np.testing.assert_allclose(arrays[key], stored[key], atol=BOUND[name])
    np.testing.assert_array_equal(arrays["greedy"], stored["greedy"])
    weights = draw(shapes, 0, tunix_models.SCALE[name])
    assert tunix_layout.params_of(name, weights).keys() == reference(name)[1].keys()


def test_logits_and_greedy_tokens(live):
    name, arrays, _ = live
    config, params, _ = reference(name)
    ids_BT, mask_BT = tunix_models.rows(name)
    got = logits_of(Gemma(config), {"params": params}, ids_BT, mask_BT)
    gap = np.abs(np.asarray(got) - arrays["logits"])[mask_BT == 1].max()
    print(f"{name}: max |logit difference| {gap:.2e}")
    assert gap <= BOUND[name]
    tokens = greedy(config, params, arrays["prompts"], tunix_models.NEW)
    np.testing.assert_array_equal(tokens, arrays["greedy"])
