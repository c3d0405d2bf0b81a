"""Losses of preferences beside a float64 oracle, value and gradient, and beside work by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.preference import Pairs, Preference, preference_loss
from grpo.algorithms.presets import PREFERENCES, preference_of, resolve
from tests import oracle_preferences

REPLACE = dataclasses.replace
VARIANTS: dict[str, tuple[str, Preference]] = {
    **{name: (name, objective) for name, objective in PREFERENCES.items()},
    "cdpo": ("dpo", REPLACE(PREFERENCES["dpo"], label_smoothing=0.2)),
    "dpo_margin": ("dpo", REPLACE(PREFERENCES["dpo"], margin_coef=0.7, gamma=0.3, beta=0.5)),
    "rpo": ("dpo", REPLACE(PREFERENCES["dpo"], sft_coef=1.0)),
    "simpo_smooth": ("simpo", REPLACE(PREFERENCES["simpo"], label_smoothing=0.1, sft_coef=0.5)),
    "orpo_margin": ("orpo", REPLACE(PREFERENCES["orpo"], margin_coef=1.0, gamma=0.2)),
    "kto_uneven": ("kto", REPLACE(PREFERENCES["kto"], desirable=1.3, undesirable=0.6, coef=2.0)),
}
P, C, MOVED = 4, 6, 0.15


def drawn(seed: int = 0):
    """Log-probs, the reference's, which tokens count, and margins; ragged, garbage elsewhere."""
    random = np.random.RandomState(seed)
    length_P2 = random.randint(1, C + 1, (P, 2))
    length_P2[0] = C
    mask_P2C = np.arange(C) < length_P2[..., None]
    logprob_P2C = np.where(mask_P2C, -1.5 + 0.8 * random.standard_normal((P, 2, C)), np.nan)
    ref_P2C = np.where(mask_P2C, logprob_P2C + 0.5 * random.standard_normal((P, 2, C)), 0.0)
    return np.minimum(logprob_P2C, -0.01), ref_P2C, mask_P2C, random.uniform(0, 2, P)


def pairs_of(ref_P2C, mask_P2C, margin_P) -> Pairs:
    tokens = mask_P2C[:, 0]
    nothing = np.zeros((len(margin_P), 2, 1), np.int32)
    return Pairs(
        ids_P2T=nothing,
        mask_P2T=nothing,
        completion_mask_P2C=mask_P2C.astype(np.int32),
        ref_logprob_P2=np.float32(ref_P2C.sum(axis=2)),
        margin_P=np.float32(margin_P),
        moved_P=np.full(len(margin_P), MOVED, np.float32),
        share_P=np.full(len(margin_P), 1 / len(margin_P), np.float32),
        weight_PC=np.float32(tokens / tokens.sum()),
    )


def lists(x_P2C, mask_P2C):
    return [
        [list(map(float, x[m])) for x, m in zip(x_2C, m_2C, strict=True)]
        for x_2C, m_2C in zip(x_P2C, mask_P2C, strict=True)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_value_and_gradient_are_the_oracles(variant):
    name, objective = VARIANTS[variant]
    logprob_P2C, ref_P2C, mask_P2C, margin_P = drawn()
    references, pairs = lists(ref_P2C, mask_P2C), pairs_of(ref_P2C, mask_P2C, margin_P)

    def oracle(logprob_P2C):
        live = lists(logprob_P2C, mask_P2C)
        return oracle_preferences.loss(name, live, references, objective, list(margin_P), MOVED)

    def ours(logprob_P2C):
        return preference_loss(logprob_P2C, pairs, objective=objective)[0]

    loss, gradient = jax.value_and_grad(ours)(jnp.float32(logprob_P2C))
    np.testing.assert_allclose(loss, oracle(logprob_P2C), rtol=2e-6)
    wanted, step = np.zeros_like(ref_P2C), 1e-6
    for place in zip(*np.nonzero(mask_P2C), strict=True):
        moved = [np.array(logprob_P2C) for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        wanted[place] = (oracle(moved[0]) - oracle(moved[1])) / (2 * step)
    np.testing.assert_allclose(gradient, wanted, atol=2e-6, rtol=1e-4)
    assert np.all(np.asarray(gradient)[~mask_P2C] == 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pairs_may_be_cut_and_filled_up_in_any_way(variant):
    _, objective = VARIANTS[variant]
    logprob_P2C, ref_P2C, mask_P2C, margin_P = drawn(1)
    pairs = pairs_of(ref_P2C, mask_P2C, margin_P)

    def loss(logprob_P2C, pairs):
        (value, metrics), gradient = jax.value_and_grad(
            lambda x: preference_loss(x, pairs, objective=objective), has_aux=True
        )(jnp.float32(logprob_P2C))
        return value, metrics, gradient

    whole, metrics, gradient = loss(logprob_P2C, pairs)
    first, ours, one = loss(logprob_P2C[:1], jax.tree.map(lambda x: x[:1], pairs))
    filled = jax.tree.map(lambda x: np.concatenate([x[1:], 0 * x[:2]]), pairs)
    rest = np.concatenate([logprob_P2C[1:], np.full_like(logprob_P2C[:2], -3.0)])
    second, others, two = loss(rest, filled)
    np.testing.assert_allclose(first + second, whole, rtol=1e-6)
    np.testing.assert_allclose(np.concatenate([one, two[: P - 1]]), gradient, rtol=1e-5, atol=1e-7)
    assert not np.any(two[P - 1 :])
    together = ours.combine(others).flat()
    for name, value in metrics.flat().items():
        np.testing.assert_allclose(together[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_two_pairs_by_hand():
    # Sums -1 and -3 against the reference's -2 and -2: s = 1 and -1, so Δ = 2; then Δ = -1.
    logprob_P2C = jnp.array([[[-0.5, -0.5], [-3.0, 9.0]], [[-1.0, -1.0], [-1.0, 9.0]]])
    mask_P2C = np.array([[[1, 1], [1, 0]], [[1, 1], [1, 0]]], bool)
    pairs = pairs_of(np.zeros((2, 2, 2)), mask_P2C, np.zeros(2))
    pairs = pairs._replace(ref_logprob_P2=jnp.array([[-2.0, -2.0], [-1.0, -1.0]]))
    loss, metrics = preference_loss(logprob_P2C, pairs, objective=PREFERENCES["dpo"])
    by_hand = (math.log1p(math.exp(-0.2)) + math.log1p(math.exp(0.1))) / 2
    np.testing.assert_allclose(loss, by_hand, rtol=1e-6)
    wanted = {
        "preference/accuracy": 0.5,
        "preference/ahead": 0.5,
        "logprob/chosen": -0.75,  # of tokens: -0.5 and -1
        "logprob/rejected": -2.0,  # -3 and -1
        "loss/sft": 0.75,
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics.flat()[name], value, rtol=1e-6, err_msg=name)


def test_ipo_by_tokens_is_the_mean_that_others_take():
    logprob_P2C, ref_P2C, mask_P2C, margin_P = drawn(2)
    objective = REPLACE(PREFERENCES["ipo"], score="ratio_mean")
    pairs = pairs_of(ref_P2C, mask_P2C, margin_P)
    count_P2 = mask_P2C.sum(axis=2)
    score_P2 = (np.where(mask_P2C, logprob_P2C, 0).sum(axis=2) - ref_P2C.sum(axis=2)) / count_P2
    wanted = np.mean((score_P2[:, 0] - score_P2[:, 1] - 5.0) ** 2)
    loss, _ = preference_loss(jnp.float32(logprob_P2C), pairs, objective=objective)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_odds_of_a_certain_completion_are_finite():
    mask_P2C = np.ones((1, 2, 3), bool)
    pairs = pairs_of(np.zeros((1, 2, 3)), mask_P2C, np.zeros(1))

    def loss(logprob_P2C):
        return preference_loss(logprob_P2C, pairs, objective=PREFERENCES["orpo"])[0]

    for certain in (0.0, -1e-12, -50.0):
        value, gradient = jax.value_and_grad(loss)(jnp.full((1, 2, 3), certain))
        assert np.isfinite(value) and np.all(np.isfinite(gradient)), certain


def test_what_is_missing_is_refused():
    logprob_P2C, ref_P2C, mask_P2C, margin_P = drawn()
    pairs = pairs_of(ref_P2C, mask_P2C, margin_P)
    with pytest.raises(ValueError, match="needs ref_logprob"):
        without = pairs._replace(ref_logprob_P2=None)
        preference_loss(jnp.float32(logprob_P2C), without, objective=PREFERENCES["dpo"])
    with pytest.raises(ValueError, match="needs moved"):
        without = pairs._replace(moved_P=None)
        preference_loss(jnp.float32(logprob_P2C), without, objective=PREFERENCES["kto"])


@pytest.mark.parametrize(
    ("preset", "fields", "line"),
    [
        ("dpo", {"score": "sum"}, "score='sum': expected one of ratio, ratio_mean, mean, odds"),
        ("dpo", {"beta": 0.0}, "beta=0: expected more"),
        ("dpo", {"beta": math.inf}, "beta=inf: expected a number from 0.0 on"),
        (
            "dpo",
            {"label_smoothing": 0.5},
            "label_smoothing=0.5: expected a number from 0.0 on, bel",
        ),
        ("dpo", {"desirable": 1.0}, "desirable=1.0 would do nothing under comparison='logistic'"),
        ("ipo", {"gamma": 0.1}, "gamma=0.1 would do nothing under comparison='square'"),
        ("kto", {"label_smoothing": 0.1}, "label_smoothing=0.1 would do nothing"),
        ("kto", {"score": "mean"}, "score='mean': comparison='apart' needs one of ratio"),
        ("dpo", {"coef": 0.0}, "coef=0 with sft_coef=0: nothing would be learnt"),
        ("dpo", {"sft_coef": -1.0}, "sft_coef=-1.0: expected a number from 0.0 on"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(preset, fields, line):
    with pytest.raises(ValueError, match="^" + line.replace("(", r"\(")):
        preference_of({"preset": preset, **fields})


def test_a_section_is_filled_in_from_its_preset():
    assert preference_of({"preset": "simpo"}) == PREFERENCES["simpo"]
    assert preference_of({"preset": "simpo", "beta": 10.0}).beta == 10.0
    # What the preset has and the choice does not read is dropped.
    square = preference_of({"preset": "dpo", "comparison": "square"})
    assert square == PREFERENCES["ipo"]
    assert resolve(resolve({"preset": "orpo"})) == resolve({"preset": "orpo"})
    with pytest.raises(ValueError, match=r"^preset='grpo': expected one of dpo, ipo, simpo"):
        preference_of({"preset": "grpo"})
    with pytest.raises(ValueError, match="clip_low: unknown field of a loss"):
        resolve({"preset": "dpo", "clip_low": 0.2})
