"""Our DPO and ORPO against Tunix's (references/tunix_preferences.py), in value and gradient.

Deviations, and how each is bridged:

    log-probs   Tunix sums them over a completion, for DPO as we do. Its ORPO takes the odds of the
                whole completion's probability, where the paper and we take those of the mean's
                (p^(1/|y|)). With completions of a token the two are one, and our loss is compared
                as it is; else it is given each completion as a single token with the sum
    sft term    Tunix: the mean over pairs of the mean over tokens. Ours has a weight per token,
                which here is 1 / (P |y|), where a stage would give 1 / (tokens of the update)
    λ           Tunix's `lambda_orpo` is our `coef` beside sft_coef = 1, with β = 1
    reference   without one Tunix takes the log-probs themselves: a reference of zeros
    smoothing   the same, in both losses
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.preference import Pairs, Preference, preference_loss
from grpo.algorithms.presets import PREFERENCES
from grpo.training.logprobs import make_preference_loss
from tests.references import tunix_models, tunix_preferences
from tests.references.tunix_losses import NEW, PROMPT
from tests.references.tunix_preferences import CASES, PAIRS, REFERENCE_SEED, WHOLE
from tests.test_tunix_losses import BOUND, gaps_of, scorer_of, small, stored_gradient

LONG_ORPO = [name for name in CASES if name.startswith("orpo") and "one_token" not in name]


def objective_of(name: str) -> Preference:
    """The case in our words."""
    case = tunix_preferences.case_of(name)
    objective = PREFERENCES[case["algorithm"]]
    own = {"dpo": {"beta": case["beta"]}, "orpo": {"coef": case["lambda_orpo"]}}
    return dataclasses.replace(
        objective, label_smoothing=case["label_smoothing"], **own[case["algorithm"]]
    )


@functools.cache
def reference_of(name: str) -> np.ndarray | None:
    """Our log-probs of the completions under the reference: a sum each; zeros without one."""
    case = tunix_preferences.case_of(name)
    if case["algorithm"] == "orpo":
        return None
    if not case["reference"]:
        return np.zeros((PAIRS, 2), np.float32)
    ids_P2T, mask_P2T = tunix_preferences.pairs(name)
    variables = {"params": small(case["model"], REFERENCE_SEED)[1]}
    rows = (x.reshape(2 * PAIRS, -1) for x in (ids_P2T, mask_P2T))
    logprob_BC, _ = scorer_of(case["model"], 1.0)(variables, *rows, NEW)
    return np.sum(np.asarray(logprob_BC).reshape(PAIRS, 2, NEW) * mask_P2T[..., PROMPT:], axis=2)


def pairs_of(name: str) -> Pairs:
    """The pairs of a case, with the supervised term's weights as Tunix has them."""
    ids_P2T, mask_P2T = tunix_preferences.pairs(name)
    tokens_PC = mask_P2T[:, 0, PROMPT:]
    return Pairs(
        ids_P2T=ids_P2T,
        mask_P2T=mask_P2T,
        completion_mask_P2C=mask_P2T[..., PROMPT:],
        ref_logprob_P2=reference_of(name),
        margin_P=np.zeros(PAIRS, np.float32),
        moved_P=None,
        share_P=np.full(PAIRS, 1 / PAIRS, np.float32),
        weight_PC=np.float32(tokens_PC / tokens_PC.sum(axis=1, keepdims=True) / PAIRS),
    )


def of_whole_completions(name: str):
    """Our loss, given each completion as one token whose log-prob is the completion's."""
    scorer = scorer_of(tunix_preferences.case_of(name)["model"], 1.0)

    def loss(params, _, pairs):
        tokens = (x.reshape(2 * PAIRS, -1) for x in (pairs.ids_P2T, pairs.mask_P2T))
        logprob_BC, _ = scorer({"params": params}, *tokens, NEW)
        masked_P2C = logprob_BC.reshape(PAIRS, 2, NEW) * pairs.completion_mask_P2C
        as_one_P21 = jnp.sum(masked_P2C, axis=2, keepdims=True)
        ones = pairs._replace(
            completion_mask_P2C=jnp.ones((PAIRS, 2, 1), jnp.int32),
            weight_PC=jnp.max(pairs.weight_PC, axis=1, keepdims=True),
        )
        return preference_loss(as_one_P21, ones, objective=objective_of(name))

    return loss


@functools.cache
def ours(name: str):
    """Our metrics and gradient for a case."""
    model = tunix_preferences.case_of(name)["model"]
    plain = make_preference_loss(scorer_of(model, 1.0), objective_of(name))
    loss = of_whole_completions(name) if name in LONG_ORPO else plain
    grads, metrics = jax.grad(loss, has_aux=True)(small(model)[1], None, pairs_of(name))
    return {key: float(x) for key, x in metrics.flat().items()}, grads


def fixture() -> dict[str, np.ndarray]:
    """Everything that Tunix said."""
    return tunix_models.said("tunix_preferences")


def check_metrics(name: str, arrays) -> float:
    """Loss and metrics are Tunix's; the largest difference, relative where above 1."""
    case, (metrics, _) = tunix_preferences.case_of(name), ours(name)
    mine = {"loss": metrics["loss"], "rewards/accuracy": metrics["preference/accuracy"]}
    if case["algorithm"] == "dpo":
        mine["rewards/margin"] = case["beta"] * metrics["preference/ahead"]
    else:
        mine |= {"sft_loss": metrics["loss/sft"], "or_loss": metrics["loss/preference"]}
    gaps = {key: abs(a - arrays[key]) / max(1.0, abs(arrays[key])) for key, a in mine.items()}
    if case["reference"]:
        theirs = arrays["reference"]
        gaps["reference"] = np.max(np.abs(reference_of(name) - theirs) / np.abs(theirs))
    assert max(gaps.values()) <= BOUND, gaps
    return float(max(gaps.values()))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_metrics(name):
    prefix = f"{name}:"
    check_metrics(name, {k.removeprefix(prefix): x for k, x in fixture().items()
                         if k.startswith(prefix)})  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    assert gaps_of(ours(name)[1], fixture()[f"{name}:projected"]) <= BOUND


@pytest.mark.parametrize("name", WHOLE)
def test_every_number_of_the_gradient(name):
    grads = ours(name)[1]
    assert max(stored_gradient(grads, fixture(), name).values()) <= BOUND


def test_the_cases_reach_what_they_are_about():
    projected = {name: fixture()[f"{name}:projected"] for name in CASES}
    for first, second in (
        ("dpo", "dpo_smooth"),
        ("dpo", "dpo_sharp"),
        ("dpo", "dpo_no_reference"),
        ("orpo", "orpo_smooth"),
        ("orpo_one_token", "orpo_one_token_smooth"),
    ):
        assert np.abs(projected[first] / projected[second] - 1).max() > 1e-2, first


@pytest.mark.parametrize("name", LONG_ORPO)
def test_odds_of_whole_completions_are_not_the_papers(name):
    """What is bridged is there: our loss of the same pairs as it is, is another one."""
    model = tunix_preferences.case_of(name)["model"]
    loss = make_preference_loss(scorer_of(model, 1.0), objective_of(name))
    _, metrics = loss(small(model)[1], None, pairs_of(name))
    flat = metrics.flat()
    assert abs(float(flat["loss/preference"]) - fixture()[f"{name}:or_loss"]) > 0.1
    assert float(flat["loss/sft"]) == pytest.approx(fixture()[f"{name}:sft_loss"], rel=BOUND)
