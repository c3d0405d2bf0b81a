"""What an objective refuses. That its options change the loss: test_train_step.py."""

import dataclasses
import warnings

import pytest

from grpo.algorithms.objective import NUMBERS, Objective, keywords
from grpo.algorithms.presets import GRPO, PRESETS
from grpo.algorithms.ratios import RATIOS
from grpo.algorithms.surrogates import BEYOND, SURROGATES


def test_the_mission():
    assert (GRPO.clip_low, GRPO.clip_high, GRPO.kl_coef, GRPO.kl) == (0.2, 0.2, 0.08, "k3")
    assert (GRPO.baseline, GRPO.scale, GRPO.aggregation) == ("group", "group", "sequence")
    assert set(PRESETS) == {
        "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "cispo", "gmpo", "maxrl",
        "dppo", "reinforce_pp_baseline",
    }  # fmt: skip


def test_the_presets_of_the_papers():
    """What the papers, or their authors' code, say in numbers; the table of docs/grpo.md."""
    maxrl, dppo = PRESETS["maxrl"], PRESETS["dppo"]
    assert (maxrl.baseline, maxrl.scale, maxrl.kl_coef) == ("group", "mean", 0.0)
    assert (dppo.surrogate, dppo.divergence_limit, dppo.kl_coef) == ("dppo_tv", 0.15, 0.0)
    assert (dppo.baseline, dppo.scale, dppo.aggregation) == ("group", "none", "constant")
    plus = PRESETS["reinforce_pp_baseline"]
    assert (plus.baseline, plus.scale, plus.surrogate) == ("group", "advantages", "clip")
    assert (plus.kl, plus.kl_in, plus.kl_coef) == ("k2", "loss", 1e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"baseline": "mean"}, "baseline='mean': expected one of group, leave_one_out, batch"),
        ({"ratio": "tokens"}, "ratio='tokens'"),
        ({"surrogate": "ppo"}, "surrogate='ppo'"),
        ({"kl": "k4"}, "kl='k4'"),
        ({"kl_in": "both"}, "kl_in='both'"),
        ({"scale": "none"}, "eps=1e-06 would do nothing"),
        ({"eps": None}, "eps=None: a number is needed"),
        ({"surrogate": "sapo"}, "clip_low=0.2 would do nothing"),
        ({"surrogate": "sapo"}, "tau_positive=None: a number is needed"),
        ({"tau_negative": 1.0}, "tau_negative=1.0 would do nothing"),
        ({"surrogate": "reinforce"}, "clip_high=0.2 would do nothing"),
        ({"clip_low": None}, "clip_low=None: a number is needed"),
        ({"clip_low": -0.1}, "clip_low=-0.1: expected more than 0"),
        ({"clip_high": float("nan")}, "clip_high=nan"),
        ({"dual_clip": 0.5}, "dual_clip=0.5: expected more than 1"),
        ({"surrogate": "cispo", "dual_clip": 3.0}, "dual_clip=3.0 would do nothing"),
        ({"overlong_buffer": 0.2}, "overlong_penalty=None"),
        ({"overlong_penalty": 1.0}, "overlong_buffer=None"),
        ({"correction": "truncate"}, "correction='truncate'"),
        ({"correction": "mask"}, "correction_level=None: expected one of token, sequence"),
        ({"correction_cap": 2.0}, "correction_cap=2.0 would do nothing"),
        ({"correction_level": "token"}, "correction_level='token': expected None"),
        ({"off_policy_limit": -1.0}, "off_policy_limit=-1.0"),
        ({"kl_coef": -0.1}, "kl_coef=-0.1"),
        ({"kl_coef": float("inf")}, "kl_coef=inf"),
        ({"ratio": "geometric", "surrogate": "cispo"}, "needs surrogate='clip'"),
        ({"ratio": "geometric", "clip_low": 1.0}, "clip_low=1.0 has no logarithm"),
        ({"ratio": "geometric", "dual_clip": 3.0}, "dual_clip=3.0 bounds the ratio of a token"),
        ({"baseline": "batch"}, "baseline='batch' with scale='group'"),
        ({"baseline": "batch", "scale": "mean"}, "baseline='batch' with scale='mean'"),
        ({"scale": "mean", "kl_in": "reward"}, "scale='mean' divides by the mean reward"),
        (
            {"scale": "mean", "overlong_buffer": 0.2, "overlong_penalty": 1.0},
            "scale='mean' divides by the mean reward",
        ),
        ({"divergence_limit": 0.1}, "divergence_limit=0.1 would do nothing under surrogate='clip'"),
        ({"kl_coef": None}, "kl_coef=None"),
        ({"decoupled": True, "baseline": "batch"}, "decoupled=True"),
        ({"decoupled": True, "scale": "none", "eps": None}, "decoupled=True normalises"),
        ({"decoupled": True, "kl_in": "reward"}, "decoupled=True"),
        (
            {"decoupled": True, "overlong_buffer": 0.2, "overlong_penalty": 1.0},
            "overlong shaping is none",
        ),
    ],
    ids=str,
)
def test_refused(change, says):
    with pytest.raises(ValueError) as refusal:
        dataclasses.replace(GRPO, **change)
    assert says in str(refusal.value)


def test_a_ratio_that_is_never_used_is_refused():
    with pytest.raises(ValueError, match="ratio='sequence' would do nothing"):
        dataclasses.replace(PRESETS["rloo"], ratio="sequence")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"divergence_limit": None}, "divergence_limit=None: a number is needed under surrogate="),
        ({"divergence_limit": 0.0}, "divergence_limit=0.0: expected more than 0"),
        ({"clip_low": 0.2}, "clip_low=0.2 would do nothing under surrogate='dppo_tv'"),
        ({"dual_clip": 3.0}, "dual_clip=3.0 would do nothing"),
        ({"ratio": "sequence"}, "ratio='sequence' with surrogate='dppo_tv'"),
    ],
    ids=str,
)
def test_dppo_refuses(change, says):
    with pytest.raises(ValueError) as refusal:
        dataclasses.replace(PRESETS["dppo"], **change)
    assert says in str(refusal.value) and ";" not in str(refusal.value)


def test_pieces_read_fields_that_there_are():
    """Their keywords are fields; what counts held tokens reads no more than what holds them."""
    fields = {field.name for field in dataclasses.fields(Objective)}
    for piece in (*RATIOS.values(), *SURROGATES.values(), *BEYOND.values()):
        assert keywords(piece) <= fields & NUMBERS.keys()
    assert keywords(SURROGATES["clip"]) == {"clip_low", "clip_high", "dual_clip"}
    assert keywords(SURROGATES["dppo_kl"]) == {"divergence_limit"}
    assert keywords(RATIOS["geometric"]) == {"clip_low", "clip_high"}
    for name, beyond in BEYOND.items():
        assert keywords(beyond) <= keywords(SURROGATES[name])
    dual = dataclasses.replace(GRPO, dual_clip=3.0)
    assert dual.read_by(SURROGATES["clip"]) == {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}


def test_all_problems_at_once():
    with pytest.raises(ValueError) as refusal:
        dataclasses.replace(GRPO, baseline="x", kl="y", clip_high=None)
    assert str(refusal.value).count(";") == 2


def test_k1_as_a_loss_warns():
    with pytest.warns(UserWarning, match="restrains nothing"):
        dataclasses.replace(GRPO, kl="k1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataclasses.replace(GRPO, kl="k1", kl_in="reward")
        dataclasses.replace(GRPO, kl="k1", kl_coef=0.0)


def test_no_field_has_a_default():
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(Objective))
