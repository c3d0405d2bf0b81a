"""policy_loss against a float64 oracle in every mode, and what must hold in all of them."""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.losses import kl_penalty, policy_loss, supervised_loss
from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import GRPO, PRESETS
from tests import oracle_losses
from tests.helpers import weighed

LIMIT = 9
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # k1 in the loss warns
    VARIANTS: dict[str, Objective] = {
        **PRESETS,
        **{
            f"{ratio}_{aggregation}": dataclasses.replace(
                GRPO, ratio=ratio, aggregation=aggregation
            )
            for ratio in ("token", "sequence", "geometric")
            for aggregation in ("token", "sequence", "constant", "sum")
        },
        **{kl: dataclasses.replace(GRPO, kl=kl) for kl in ("k1", "k2", "k3")},
        "dual_clip": dataclasses.replace(GRPO, dual_clip=1.5),
        "sapo": dataclasses.replace(
            GRPO, surrogate="sapo", clip_low=None, clip_high=None, tau_positive=1.0,
            tau_negative=1.05,
        ),
        # Limits at which some tokens are masked and some are not, here and in test_train_step.py.
        "dppo_narrow": dataclasses.replace(PRESETS["dppo"], divergence_limit=0.02),
        "dppo_kl": dataclasses.replace(
            PRESETS["dppo"], surrogate="dppo_kl", divergence_limit=3e-3
        ),
        "cispo_sequence": dataclasses.replace(PRESETS["cispo"], ratio="sequence"),
        "entropy": dataclasses.replace(GRPO, entropy_coef=0.01),
        "mask_truncated": dataclasses.replace(GRPO, mask_truncated=True),
        "off_policy": dataclasses.replace(GRPO, off_policy_limit=0.02),
        **{
            f"{how}_{level}": dataclasses.replace(
                GRPO, correction=how, correction_level=level, correction_cap=1.3
            )
            for how in ("cap", "mask")
            for level in ("token", "sequence")
        },
        **{
            f"{name}_taught": dataclasses.replace(PRESETS[name], teacher_coef=coef)
            for name, coef in (("grpo", 0.7), ("dapo", 2.0), ("rloo", 1.0), ("cispo", 1.0))
        },
        "dual_clip_taught": dataclasses.replace(GRPO, dual_clip=1.5, teacher_coef=5.0),
        "dppo_narrow_taught": dataclasses.replace(
            PRESETS["dppo"], divergence_limit=0.02, teacher_coef=3.0
        ),
        "off_policy_taught": dataclasses.replace(GRPO, off_policy_limit=0.02, teacher_coef=5.0),
    }  # fmt: skip


def batch_of(rows=6, length=7, seed=0, spread=0.3) -> dict:
    """Ragged rows, one of them empty and one truncated."""
    random = np.random.RandomState(seed)
    lengths = random.randint(1, length + 1, rows)
    lengths[1], lengths[2] = 0, length

    def draw():
        return random.standard_normal((rows, length)) * spread

    logprob = -1.5 + draw()
    return {
        "logprob": logprob,
        "mask": np.arange(length)[None, :] < lengths[:, None],
        "truncated": np.arange(rows) == 2,
        "advantage": random.standard_normal(rows) * 1.5,
        "old": logprob + draw(),
        "ref": logprob + draw(),
        "sample": logprob + draw(),
        "entropy": np.abs(draw()),
        "teacher": logprob + draw(),
    }


def groups_of(batch: dict, objective: Objective):
    """The batch as policy_loss wants it; garbage wherever nothing should look."""

    def nan(x):
        return None if x is None else jnp.asarray(np.where(batch["mask"], x, np.nan), jnp.float32)

    return weighed(
        completion_mask_BC=jnp.asarray(batch["mask"]),
        truncated_B=jnp.asarray(batch["truncated"]),
        advantage_B=jnp.asarray(batch["advantage"], jnp.float32),
        old_logprob_BC=nan(batch["old"]),
        ref_logprob_BC=nan(batch["ref"]),
        sample_logprob_BC=nan(batch["sample"]),
        teacher_logprob_BC=nan(batch["teacher"]),
        limit=LIMIT,
        objective=objective,
    ), nan(batch["entropy"])


def value_and_grad(batch: dict, objective: Objective):
    groups, entropy = groups_of(batch, objective)
    entropy = entropy if objective.entropy_coef else None

    def loss(logprob):
        return policy_loss(logprob, entropy, groups, objective=objective)

    logprob = jnp.asarray(np.where(batch["mask"], batch["logprob"], np.nan), jnp.float32)
    (value, metrics), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(logprob)
    return float(value), {k: float(v) for k, v in metrics.flat().items()}, np.asarray(grad)


@pytest.mark.parametrize("on_policy", [False, True], ids=["old", "first"])
@pytest.mark.parametrize("name", VARIANTS)
def test_against_the_oracle(name, on_policy):
    objective, batch = VARIANTS[name], batch_of()
    if on_policy:
        batch["old"] = None
    value, metrics, grad = value_and_grad(batch, objective)
    logprob = batch["logprob"]
    assert value == pytest.approx(
        oracle_losses.loss(objective, logprob, logprob, batch, LIMIT), rel=1e-5, abs=1e-6
    )
    np.testing.assert_allclose(
        grad, oracle_losses.gradient(objective, logprob, batch, LIMIT), rtol=2e-5, atol=2e-6
    )
    assert np.abs(grad).max() > 1e-4
    assert all(np.isfinite(list(metrics.values())))


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_to_learn_from_is_zero_and_finite(name):
    batch = batch_of()
    batch["mask"] = np.zeros_like(batch["mask"])
    value, metrics, grad = value_and_grad(batch, VARIANTS[name])
    assert value == 0 and not grad.any()
    assert all(np.isfinite(list(metrics.values())))


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "gspo", "token_sum"])
def test_truncated_rows_leave_numerator_and_denominator(name):
    objective = dataclasses.replace(VARIANTS[name], mask_truncated=True)
    batch = batch_of()
    without = {k: v[~batch["truncated"]] for k, v in batch.items()}
    both = value_and_grad(batch, objective), value_and_grad(without, objective)
    assert both[0][0] == pytest.approx(both[1][0], rel=1e-6)
    np.testing.assert_allclose(both[0][2][~batch["truncated"]], both[1][2], rtol=1e-6)
    assert not both[0][2][batch["truncated"]].any()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_sign(name):
    """A step against the gradient makes tokens of positive advantage likelier, others less so."""
    batch = batch_of()
    batch["old"], batch["ref"], batch["teacher"] = None, batch["logprob"], batch["logprob"]
    objective = VARIANTS[name]
    _, _, grad = value_and_grad(batch, objective)
    learnt = batch["mask"] & ~(batch["truncated"] & objective.mask_truncated)[:, None]
    if objective.correction != "mask":
        expected = -np.sign(batch["advantage"])[:, None] * learnt
        if objective.kl != "k1" or objective.kl_in != "loss":
            np.testing.assert_array_equal(np.sign(grad), expected)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"cap_sequence", "mask_sequence"}))
def test_at_ratio_one_the_gradient_is_that_of_reinforce(name):
    objective, batch = VARIANTS[name], batch_of()
    batch["old"], batch["sample"], batch["ref"] = None, None, batch["logprob"]
    batch["teacher"] = batch["logprob"]
    if objective.correction is not None or objective.off_policy_limit is not None:
        batch["sample"] = batch["logprob"]
    batch["advantage"] -= batch["advantage"].mean()
    _, metrics, grad = value_and_grad(batch, objective)
    weight = np.asarray(groups_of(batch, objective)[0].weight_BC)
    expected = -weight * batch["advantage"][:, None]
    if name != "k1":  # its gradient is 1, not 0, where policy and reference agree
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)
    assert metrics["ratio/mean"] == pytest.approx(1) and metrics["ratio/max"] == 1


def test_loss_is_zero_at_the_first_update_and_its_gradient_is_not():
    """Group-relative advantages sum to zero, and so does the loss: equation in docs/metrics.md."""
    batch = batch_of()
    batch["mask"] = np.ones_like(batch["mask"])
    batch["advantage"] = np.array([1.0, -1.0, 0.5, -0.5, 1.5, -1.5])
    batch["old"], batch["ref"] = None, batch["logprob"]
    value, metrics, grad = value_and_grad(batch, GRPO)
    assert abs(value) < 1e-7 and metrics["kl"] == 0
    assert np.linalg.norm(grad) > 0.1


def one_token(logprob, old, advantage) -> dict:
    """A batch of one row of one token."""
    return {
        "logprob": np.full((1, 1), logprob), "mask": np.ones((1, 1), bool),
        "truncated": np.zeros(1, bool), "advantage": np.array([advantage]),
        "old": np.full((1, 1), old), "ref": None, "sample": None, "entropy": None,
        "teacher": None,
    }  # fmt: skip


LOW, INSIDE, HIGH = np.log(0.5), 0.0, np.log(2.0)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "value", "slope", "dual"),
    [  # min(ρ A, clip(ρ) A) and its slope by log π; with dual_clip 1.5 where that differs
        (LOW, 1.0, 0.5, 0.5, None),
        (INSIDE, 1.0, 1.0, 1.0, None),
        (HIGH, 1.0, 1.2, 0.0, None),
        (LOW, -1.0, -0.8, 0.0, None),
        (INSIDE, -1.0, -1.0, -1.0, None),
        (HIGH, -1.0, -2.0, -2.0, (-1.5, 0.0)),
    ],
)
def test_the_clip_truth_table(log_ratio, advantage, value, slope, dual):
    batch = one_token(-1.0, -1.0 - log_ratio, advantage)
    plain = dataclasses.replace(GRPO, kl_coef=0.0)
    loss, metrics, grad = value_and_grad(batch, plain)
    assert (-loss, -grad[0, 0]) == pytest.approx((value, slope), abs=1e-6)
    assert metrics["clip/low"] == (log_ratio == LOW and advantage < 0)
    assert metrics["clip/high"] == (log_ratio == HIGH and advantage > 0)
    loss, _, grad = value_and_grad(batch, dataclasses.replace(plain, dual_clip=1.5))
    assert (-loss, -grad[0, 0]) == pytest.approx(dual or (value, slope), abs=1e-6)


TV, TV_LIMIT, KL_LIMIT = PRESETS["dppo"], 0.15, 0.05


@pytest.mark.parametrize(
    ("old", "new", "advantage", "ratio", "masked_by_tv", "masked_by_kl"),
    [  # |p - q| and q log(q/p) + (1 - q) log((1 - q)/(1 - p))
        (0.5, 0.7, 1.0, 1.4, True, True),  # 0.2 and 0.087
        (0.5, 0.6, 1.0, 1.2, False, False),  # 0.1 and 0.020
        (0.5, 0.7, -1.0, 1.4, False, False),  # far, and on the way back
        (0.5, 0.3, -1.0, 0.6, True, True),  # 0.2 and 0.087
        (0.5, 0.3, 1.0, 0.6, False, False),  # far, and on the way back
        (0.5, 0.5, 1.0, 1.0, False, False),
        (1e-5, 1e-3, 1.0, 100.0, False, False),  # a hundredfold of nothing: 0.00099 and 0.00094
        (0.99, 0.8, -1.0, 0.8 / 0.99, True, True),  # inside of PPO's clip range: 0.19 and 0.18
        (0.9, 0.8, -1.0, 0.8 / 0.9, False, False),  # 0.1 and 0.037
        (0.02, 0.15, 1.0, 7.5, False, True),  # 0.13 and 0.099
        (0.5, 1.0, 1.0, 2.0, True, True),  # as close to 1 as numbers go
    ],
)
def test_the_dppo_truth_table(old, new, advantage, ratio, masked_by_tv, masked_by_kl):
    """Its value is ρ A and so is its slope by log π, or both are 0."""
    batch = one_token(np.log(new), np.log(old), advantage)
    for surrogate, limit, masked in (
        ("dppo_tv", TV_LIMIT, masked_by_tv),
        ("dppo_kl", KL_LIMIT, masked_by_kl),
    ):
        objective = dataclasses.replace(TV, surrogate=surrogate, divergence_limit=limit)
        loss, metrics, grad = value_and_grad(batch, objective)
        expected = 0.0 if masked else ratio * advantage
        # Dr. GRPO divides by the longest completion.
        assert -loss * LIMIT == pytest.approx(expected, rel=1e-5)
        assert -grad[0, 0] * LIMIT == pytest.approx(expected, rel=1e-5)
        assert metrics["clip/masked"] == masked


@pytest.mark.parametrize("old", [0.0, -1e-6])
@pytest.mark.parametrize("surrogate", ["dppo_tv", "dppo_kl"])
def test_a_token_that_was_certain_and_is(surrogate, old):
    """Its probability is 1 in floating point: the 0 left for all others is divided by nothing."""
    objective = dataclasses.replace(TV, surrogate=surrogate)
    loss, metrics, grad = value_and_grad(one_token(0.0, old, 1.0), objective)
    assert (-loss * LIMIT, -grad[0, 0] * LIMIT) == pytest.approx((1.0, 1.0), rel=1e-5)
    assert metrics["clip/masked"] == 0


def test_a_kl_that_masks_in_one_direction_only():
    """From 0.2 to 0.02 KL(π_old ‖ π) is 0.298, and from 0.02 to 0.2 it is 0.153."""
    objective = dataclasses.replace(TV, surrogate="dppo_kl", divergence_limit=0.2)
    batch = one_token(np.log(0.02), np.log(0.2), -1.0)
    assert value_and_grad(batch, objective)[1]["clip/masked"] == 1
    batch = one_token(np.log(0.2), np.log(0.02), 1.0)
    assert value_and_grad(batch, objective)[1]["clip/masked"] == 0


def test_what_is_masked_is_counted_among_all_tokens():
    batch = batch_of()
    objective = VARIANTS["dppo_kl"]
    rows = [
        [
            oracle_losses.is_masked(objective, *pair, advantage)
            for pair in zip(logprob[mask], old[mask], strict=True)
        ]
        for logprob, old, mask, advantage in zip(
            batch["logprob"], batch["old"], batch["mask"], batch["advantage"], strict=True
        )
    ]
    masked = [x for row in rows for x in row]
    assert 0 < sum(masked) < len(masked)
    got = value_and_grad(batch, objective)[1]["clip/masked"]
    assert got == pytest.approx(sum(masked) / len(masked))


def test_no_gradient_reaches_what_is_frozen():
    objective = dataclasses.replace(
        GRPO, correction="cap", correction_level="token", correction_cap=2.0, teacher_coef=1.0
    )
    batch = batch_of()
    groups, _ = groups_of(batch, objective)
    logprob = jnp.asarray(batch["logprob"], jnp.float32)
    floats = {
        name: value
        for name, value in groups._asdict().items()
        if value is not None
        and name not in ("completion_mask_BC", "truncated_B", "weight_BC", "share_BC")
    }

    def loss(floats):
        frozen = groups._replace(**floats)
        return policy_loss(logprob, None, frozen, objective=objective)[0]

    for name, grad in jax.grad(loss)(floats).items():
        assert not np.nan_to_num(np.asarray(grad), nan=1.0).any(), name


def test_correction_metrics_are_of_the_uncapped_weights():
    objective = dataclasses.replace(
        GRPO, correction="cap", correction_level="token", correction_cap=1.5
    )
    batch = {name: x[:2] for name, x in batch_of(length=2).items()}
    batch["mask"] = np.ones((2, 2), bool)
    batch["sample"] = batch["old"] - np.log([[1.0, 2.0], [4.0, 0.25]])
    _, metrics, _ = value_and_grad(batch, objective)
    assert metrics["correction/weight"] == pytest.approx((1 + 2 + 4 + 0.25) / 4)
    assert metrics["correction/weight_square"] == pytest.approx((1 + 4 + 16 + 0.0625) / 4)
    assert metrics["correction/outside"] == pytest.approx(3 / 4)
    assert metrics["gap/max"] == pytest.approx(np.log(4))
    assert metrics["gap/mean"] == pytest.approx(np.log([1, 2, 4, 4]).mean())


def test_geometric_clipping_is_the_surrogates():
    """The outer clip of a geometric ratio changes neither value nor gradient."""
    batch, objective = batch_of(spread=1.0), PRESETS["gmpo"]
    expected = oracle_losses.gradient(objective, batch["logprob"], batch, LIMIT)
    np.testing.assert_allclose(value_and_grad(batch, objective)[2], expected, rtol=1e-4, atol=1e-6)


def test_entropy_bonus_has_a_gradient():
    objective = dataclasses.replace(GRPO, entropy_coef=0.5)
    batch = batch_of()
    groups, entropy = groups_of(batch, objective)
    logprob = jnp.asarray(batch["logprob"], jnp.float32)
    grad = jax.grad(lambda h: policy_loss(logprob, h, groups, objective=objective)[0])(entropy)
    np.testing.assert_allclose(grad, -0.5 * np.asarray(groups.weight_BC), rtol=1e-6)


def test_penalty_by_hand():
    objective = dataclasses.replace(GRPO, kl="k1", kl_in="reward", kl_coef=0.5)
    logprob = jnp.array([[-1.0, -2.0, jnp.nan], [-3.0, jnp.nan, jnp.nan]])
    ref = jnp.array([[-1.5, -1.0, 0.0], [-5.0, 0.0, 0.0]])
    mask = jnp.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(kl_penalty(logprob, ref, mask, objective=objective), [-0.25, 1.0])


def test_supervised_loss_by_hand():
    logprob = jnp.array([[-1.0, -2.0, jnp.nan]])
    loss, _ = supervised_loss(logprob, jnp.array([[0.5, 0.25, 0.0]]))
    assert float(loss) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"entropy_coef": 0.1}, "entropy"),
        ({}, "ref_logprob"),
        ({"teacher_coef": 0.5}, "teacher_logprob"),
        ({"correction": "cap", "correction_level": "token", "correction_cap": 2.0}, "sample_log"),
        ({"kl_coef": 0.0, "off_policy_limit": 1.0}, "old_logprob or sample_logprob"),
    ],
)
def test_an_option_without_what_it_needs_is_an_error(change, missing):
    batch = batch_of() | dict.fromkeys(("old", "ref", "sample", "teacher"))
    objective = dataclasses.replace(GRPO, **change)
    groups, _ = groups_of(batch, objective)
    with pytest.raises(ValueError, match=f"the objective needs .*{missing}"):
        policy_loss(jnp.zeros((6, 7)), None, groups, objective=objective)


def test_a_teacher_by_hand():
    """Two tokens of one completion: likelier than to the teacher by 0.5, less likely by 1.0."""
    batch: dict[str, Any] = {name: x[:1] for name, x in batch_of(length=3).items()}
    batch["mask"] = np.array([[True, True, False]])
    batch["logprob"] = np.array([[-1.0, -2.0, 0.0]])
    batch["teacher"] = np.array([[-1.5, -1.0, -9.0]])
    batch |= {"old": None, "ref": None, "sample": None, "advantage": np.array([0.25])}
    objective = dataclasses.replace(PRESETS["rloo"], kl_coef=0.0, teacher_coef=2.0)
    loss, metrics, grad = value_and_grad(batch, objective)
    # A = 0.25 - 2 (0.5) = -0.75, and 0.25 - 2 (-1.0) = 2.25
    np.testing.assert_allclose(grad, [[0.75, -2.25, 0.0]], rtol=1e-6)
    assert loss == pytest.approx(-(-0.75 * -1.0 + 2.25 * -2.0))
    assert metrics["teacher/kl"] == pytest.approx((0.5 - 1.0) / 2)


def test_what_is_held_back_goes_by_the_advantage_of_the_token():
    """The reward is for both tokens, the teacher against the second one, whose ratio is 2."""
    batch: dict[str, Any] = {name: x[:1] for name, x in batch_of(length=2).items()}
    batch["mask"], batch["advantage"] = np.ones((1, 2), bool), np.array([1.0])
    batch["old"] = batch["logprob"] - np.log(2.0)
    batch["teacher"] = batch["old"] - [[0.0, 3.0]]
    objective = dataclasses.replace(GRPO, kl_coef=0.0, teacher_coef=1.0)
    _, metrics, grad = value_and_grad(batch, objective)
    assert metrics["clip/high"] == 0.5 and grad[0, 0] == 0
    assert grad[0, 1] == pytest.approx(2.0 * 2.0 / 2)  # ρ = 2, A = 1 - 3, one of two tokens


def test_a_teacher_that_agrees_changes_nothing():
    """And one without a coefficient is only measured."""
    batch = batch_of()
    objective = dataclasses.replace(GRPO, teacher_coef=3.0)
    same = value_and_grad(batch | {"teacher": batch["old"]}, objective)
    plain = value_and_grad(batch, GRPO)
    assert same[0] == plain[0] and np.array_equal(same[2], plain[2])
    assert same[1]["teacher/kl"] == 0
    gap = (batch["old"] - batch["teacher"])[batch["mask"]].mean()
    assert plain[1]["teacher/kl"] == pytest.approx(gap, rel=1e-5) and abs(gap) > 1e-3
    alone = value_and_grad(batch | {"teacher": None}, GRPO)
    assert alone[0] == plain[0] and "teacher/kl" not in alone[1]


def test_the_mean_gradient_is_that_of_the_reverse_kl():
    """Over all tokens by their probability: ∇ KL(π ‖ π_T) of one distribution, by its logits."""
    random = np.random.RandomState(0)
    z_V, teacher_V = random.standard_normal(5), jax.nn.log_softmax(random.standard_normal(5) * 2)
    objective = dataclasses.replace(PRESETS["rloo"], kl_coef=0.0, teacher_coef=1.0)

    def kl(z_V):
        logprob_V = jax.nn.log_softmax(z_V)
        return jnp.sum(jnp.exp(logprob_V) * (logprob_V - teacher_V))

    def of_token(z_V, token):
        logprob_BC = jax.nn.log_softmax(z_V)[None, token][:, None]
        groups = weighed(
            completion_mask_BC=jnp.ones((1, 1), bool), truncated_B=jnp.zeros(1, bool),
            advantage_B=jnp.zeros(1), sample_logprob_BC=None,
            teacher_logprob_BC=teacher_V[None, token][:, None], limit=1, objective=objective,
        )  # fmt: skip
        return policy_loss(logprob_BC, None, groups, objective=objective)[0]

    z_V = jnp.asarray(z_V, jnp.float32)
    each_V = [jax.grad(of_token)(z_V, token) for token in range(5)]
    mean = sum(p * grad for p, grad in zip(jax.nn.softmax(z_V), each_V, strict=True))
    np.testing.assert_allclose(mean, jax.grad(kl)(z_V), atol=1e-6)


def test_at_the_first_update_stale_is_against_the_sampler():
    """The policy is its own old one; what the sampler was may still be far behind."""
    objective = dataclasses.replace(GRPO, off_policy_limit=0.5)
    batch: dict[str, Any] = batch_of() | {"old": None}
    assert value_and_grad(batch, objective)[1]["off_policy/masked"] == 0
    batch["sample"] = batch["logprob"] + 0.6
    got = value_and_grad(batch, objective)[1]["off_policy/masked"]
    stale = batch["mask"] & (batch["advantage"] < 0)[:, None]
    assert got == pytest.approx(stale.sum() / batch["mask"].sum())


def test_a_ratio_beyond_all_numbers_has_a_gradient():
    batch = batch_of()
    batch["old"] = batch["logprob"] - 200.0
    batch["advantage"] = np.abs(batch["advantage"])
    _, _, grad = value_and_grad(batch, dataclasses.replace(GRPO, kl_coef=0.0))
    assert not grad.any()  # clipped, every token


def test_cispo_counts_what_it_clips_whatever_the_advantage():
    batch = batch_of()
    batch["old"] = batch["logprob"] - np.log(10.0)
    assert value_and_grad(batch, PRESETS["cispo"])[1]["clip/high"] == pytest.approx(1)
