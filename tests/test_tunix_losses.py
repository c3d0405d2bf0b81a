"""Our losses, gradients and advantages against Tunix's (references/tunix_losses.py)."""

import contextlib
import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import advantages
from grpo.algorithms.groups import Groups
from grpo.algorithms.objective import Objective
from grpo.parity import words
from grpo.parity.words import ADVANTAGE
from grpo.training.logprobs import Logprobs, make_policy_loss
from models.gemma import Gemma
from tests.helpers import weighed
from tests.references import tunix_layout, tunix_losses, tunix_models
from tests.references.recipe import draw
from tests.references.tunix_losses import ADVANTAGES, CAP, CASES, LENGTHS, NEW, PROMPT, ROWS

BOUND = 1e-5  # float32, sums in a different order
# Tunix's metric -> ours; what each means is compared where it means the same.
SAME = {"pg_loss": "loss/policy", "is_ratio/mean": "ratio/mean", "is_ratio/max": "ratio/max"}


def objective_of(name: str) -> Objective:
    """The case in our words."""
    case = tunix_losses.case_of(name)
    is_k1 = case["kl_loss_mode"] == "kl" and case["beta"]
    warns = pytest.warns(UserWarning, match="restrains nothing")
    with warns if is_k1 else contextlib.nullcontext():
        return dataclasses.replace(
            words.objective_of(case),
            correction="cap" if case["weighted"] else None,
            correction_level="token" if case["weighted"] else None,
            correction_cap=CAP if case["weighted"] else None,
        )


@functools.cache
def small(model: str, seed: int = 0):
    """A small architecture as our module, and its weights."""
    stored = (tunix_models.HERE / "tunix_models.json").read_text()
    weights = draw(json.loads(stored)[model], seed, tunix_models.SCALE[model])
    return Gemma(tunix_layout.config_of(model)), tunix_layout.params_of(model, weights)


def fixture() -> dict[str, np.ndarray]:
    """Everything that Tunix said."""
    return tunix_models.said("tunix_losses")


@functools.cache
def scorer_of(model: str, temperature: float) -> Any:
    """Our scorer, compiled for itself: once for all the losses that are put on top of it."""
    scorer = Logprobs(module=small(model)[0], temperature=temperature, with_entropy=True)
    return jax.jit(scorer, static_argnums=3)


def groups_of(name: str, logprob: bytes) -> Groups:
    """What the case learns from, given Tunix's log-probabilities of the policy."""
    objective = objective_of(name)
    got = tunix_losses.given_logprobs(name, np.frombuffer(logprob, np.float32).reshape(ROWS, NEW))
    return weighed(
        completion_mask_BC=tunix_losses.rows()[1][:, PROMPT:],
        truncated_B=np.array(LENGTHS) == NEW,
        advantage_B=ADVANTAGES,
        old_logprob_BC=got["old"],
        ref_logprob_BC=got["ref"],
        sample_logprob_BC=got["sample"],
        limit=NEW,
        objective=objective,
    )


@functools.cache
def ours(name: str, logprob: bytes, start: int = 0, end: int = ROWS):
    """Our loss, metrics and gradient for a case, or for some of its rows."""
    case = tunix_losses.case_of(name)
    ids_BT, mask_BT = tunix_losses.rows()
    batch = groups_of(name, logprob)._replace(ids_BT=ids_BT, mask_BT=mask_BT)
    scorer = scorer_of(case["model"], case["temperature"])
    loss = make_policy_loss(scorer, objective_of(name))
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(
        small(case["model"])[1], None, jax.tree.map(lambda x: x[start:end], batch)
    )
    return float(value), {key: float(x) for key, x in metrics.flat().items()}, grads


def check_metrics(name: str, arrays: dict[str, np.ndarray]) -> float:
    """Loss and metrics are Tunix's; the largest difference, relative where above 1."""
    case = tunix_losses.case_of(name)
    value, metrics, _ = ours(name, arrays["logprob"].tobytes())
    pairs = {"loss": (value, arrays["loss"])}
    pairs |= {key: (metrics[mine], arrays[key]) for key, mine in SAME.items()}
    clipped = metrics["clip/low"] + metrics["clip/high"]
    pairs["pg_clipfrac"] = (clipped, arrays["pg_clipfrac"])
    if case["beta"]:
        pairs["kl_loss"] = (metrics["loss/kl"], arrays["kl_loss"])
        if case["kl_loss_mode"] == "low_var_kl":  # ours is always k3
            pairs["kl"] = (metrics["kl"], arrays["kl"])
    if case["loss_agg_mode"] == "token-mean":  # ours is always a mean over tokens
        pairs["entropy"] = (metrics["entropy"], arrays["entropy"])
    gaps = {key: abs(a - b) / max(1.0, abs(b)) for key, (a, b) in pairs.items()}
    assert max(gaps.values()) <= BOUND, gaps
    return float(max(gaps.values()))


def leaf_gaps(mine, theirs) -> dict[str, float]:
    """By leaf: how far two gradients are apart, relative to the leaf's own norm."""
    return {
        jax.tree_util.keystr(path): float(np.linalg.norm(a - b) / np.linalg.norm(b))
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(mine), jax.tree.leaves(theirs), strict=True
        )
    }


def gaps_of(grads, theirs) -> float:
    """How far a gradient is from stored projections: of its worst leaf, relative."""
    norm = np.linalg.norm(theirs, axis=1)
    assert norm.min() > 1e-3  # no leaf is idle
    return float(np.max(np.linalg.norm(tunix_losses.project(grads) - theirs, axis=1) / norm))


def stored_gradient(grads, stored, name: str) -> dict[str, float]:
    """By leaf: how far a gradient is from a case's whole one in a fixture."""
    prefix = f"{name}:gradient"
    theirs = jax.tree_util.tree_map_with_path(
        lambda path, _: stored[prefix + jax.tree_util.keystr(path)], grads
    )
    return leaf_gaps(grads, theirs)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_metrics(name):
    stored = fixture()
    arrays = {key: stored[f"{name}:{key}"] for key in ("loss", *tunix_losses.METRICS)}
    arrays["logprob"] = stored[tunix_losses.logprob_key(name)]
    check_metrics(name, arrays)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    stored = fixture()
    _, _, grads = ours(name, stored[tunix_losses.logprob_key(name)].tobytes())
    assert gaps_of(grads, stored[f"{name}:projected"]) <= BOUND


@pytest.mark.parametrize("name", tunix_losses.WHOLE)
def test_every_number_of_the_gradient(name):
    stored = fixture()
    _, _, grads = ours(name, stored[tunix_losses.logprob_key(name)].tobytes())
    gaps = stored_gradient(grads, stored, name)
    assert max(gaps.values()) <= BOUND, gaps


@pytest.mark.parametrize("name", ["grpo", "hot", "plain", "gemma2"])
def test_token_logprobs(name):
    case = tunix_losses.case_of(name)
    ids_BT, mask_BT = tunix_losses.rows()
    scorer = scorer_of(case["model"], case["temperature"])
    logprob_BC, _ = scorer({"params": small(case["model"])[1]}, ids_BT, mask_BT, NEW)
    gap = np.abs(logprob_BC - fixture()[tunix_losses.logprob_key(name)])[mask_BT[:, PROMPT:] == 1]
    assert gap.max() <= BOUND


def test_the_cases_reach_what_they_are_about():
    stored = fixture()
    for name in CASES:
        case = tunix_losses.case_of(name)
        assert (stored[f"{name}:pg_clipfrac"] > 0) == case["old"], name
        assert (stored[f"{name}:pg_clipfrac_lower"] > 0) == (case["epsilon_c"] is not None), name
        if case["model"] == "gemma3_small" and name != "grpo":
            plain = stored["grpo:projected"]
            assert np.abs(stored[f"{name}:projected"] / plain - 1).max() > 1e-2, name


@pytest.mark.parametrize("name", tunix_losses.ESTIMATORS)
def test_advantages(name):
    got = advantages(jnp.asarray(tunix_losses.REWARDS, jnp.float32), **ADVANTAGE[name])
    np.testing.assert_allclose(got, fixture()[f"advantages/{name}"], atol=1e-6, rtol=0)
