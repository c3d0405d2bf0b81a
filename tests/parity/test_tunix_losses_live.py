"""Tunix itself beside our losses, advantages, sampler and log-probabilities.

What tests/test_tunix_losses.py and test_tunix_preferences, _distillation and _rollout beside it
read from fixtures, computed again and compared in every number; `pytest -s` prints the largest
difference of every case.

    pip install -e '.[test,parity]' && pytest tests/parity -s -n 0     (an environment of its own)
"""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import advantages
from tests import (
    test_tunix_distillation,
    test_tunix_losses,
    test_tunix_preferences,
    test_tunix_rollout,
)
from tests.references import tunix_distillation, tunix_losses, tunix_preferences, tunix_rollout
from tests.references.tunix_rollout import STOPS, TEMPERATURE
from tests.test_tunix_losses import ADVANTAGE, BOUND
from tests.test_tunix_rollout import GREEDY, UNSTOPPED

pytest.importorskip("tunix", reason="Tunix is not installed: pip install -e '.[test,parity]'")
# Tunix and what it stands on warn as they please.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", tunix_losses.CASES)
def test_losses_metrics_and_whole_gradients(name):
    arrays, theirs = tunix_losses.run_case(name)
    gap = test_tunix_losses.check_metrics(name, arrays)
    _, _, mine = test_tunix_losses.ours(name, arrays["logprob"].tobytes())
    leaves = test_tunix_losses.leaf_gaps(mine, theirs)
    worst = max(leaves.values())
    print(f"loss {name}: loss and metrics {gap:.1e}, worst leaf of the gradient {worst:.1e}")
    assert worst <= BOUND, leaves
    stored = test_tunix_losses.fixture()
    np.testing.assert_allclose(arrays["loss"], stored[f"{name}:loss"], rtol=BOUND, atol=BOUND)
    projected = tunix_losses.project(theirs)
    np.testing.assert_allclose(projected, stored[f"{name}:projected"], rtol=1e-4, atol=1e-4)


def check_teaching(name, reference, ours):
    """A case of preferences or of distillation beside Tunix, and its fixture beside both."""
    arrays, theirs = reference.run_case(name)
    gap = ours.check_metrics(name, arrays)
    leaves = test_tunix_losses.leaf_gaps(ours.ours(name)[1], theirs)
    worst = max(leaves.values())
    kind = reference.__name__.rpartition("_")[2]
    print(f"{kind} {name}: loss and metrics {gap:.1e}, worst leaf of the gradient {worst:.1e}")
    assert worst <= BOUND, leaves
    stored = ours.fixture()
    for key, value in arrays.items():
        np.testing.assert_allclose(value, stored[f"{name}:{key}"], rtol=BOUND, atol=BOUND)
    projected = tunix_losses.project(theirs)
    np.testing.assert_allclose(projected, stored[f"{name}:projected"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", tunix_preferences.CASES)
def test_preferences(name):
    check_teaching(name, tunix_preferences, test_tunix_preferences)


@pytest.mark.parametrize("name", tunix_distillation.CASES)
def test_distillation(name):
    check_teaching(name, tunix_distillation, test_tunix_distillation)


def test_advantages():
    for name, theirs in tunix_losses.run_advantages().items():
        mine = advantages(jnp.asarray(tunix_losses.REWARDS, jnp.float32), **ADVANTAGE[name])
        gap = np.abs(mine - theirs).max()
        print(f"advantages {name}: {gap:.1e}")
        assert gap <= 1e-6


@pytest.mark.parametrize("name", STOPS)
def test_sampler(name):
    theirs, stored = tunix_rollout.run_case(name), test_tunix_rollout.fixture()
    for key in ("greedy", "sampled", "stopped_lengths"):
        np.testing.assert_array_equal(theirs[key], stored[f"{name}/{key}"], err_msg=key)
    mine = test_tunix_rollout.ours(name, GREEDY, UNSTOPPED)
    np.testing.assert_array_equal(mine.completion_ids_BC, theirs["greedy"])
    greedy = np.abs(mine.sample_logprob_BC - theirs["greedy_forced"]).max()
    scored = test_tunix_rollout.scored(name, theirs["sampled"], TEMPERATURE)
    drawn = np.abs(scored - theirs["sampled_logprob"]).max()
    # The other way round: what we draw, as Tunix's trainer scores it.
    ours = test_tunix_rollout.ours(name, GREEDY._replace(temperature=TEMPERATURE), UNSTOPPED)
    ids_BC = np.asarray(ours.completion_ids_BC)
    readable_B = np.all(ids_BC != 0, axis=1)  # Tunix takes a token 0 for padding
    assert readable_B.sum() >= 2
    _, model = tunix_rollout.make_sampler(name)
    got = tunix_rollout.teacher_forced(model, ids_BC, TEMPERATURE)
    back = np.abs(ours.sample_logprob_BC - got)[readable_B].max()
    print(
        f"sampler {name}: {ids_BC.size} greedy tokens equal, their log-probs {greedy:.1e}; "
        f"of what Tunix drew {drawn:.1e}; of what we drew {back:.1e}"
    )
    assert max(greedy, drawn, back) <= BOUND
