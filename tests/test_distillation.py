"""The loss of distillation against float64: values, gradients, and any way to cut the rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distillation import (
    CERTAIN,
    Distillation,
    Taught,
    tail_divergence,
    with_weights,
)
from grpo.algorithms.presets import DISTILLATIONS, distillation_of, resolve
from grpo.training.distill_losses import (
    Lesson,
    lessons_of_rows,
    make_distillation_loss,
    student_of,
)
from grpo.training.train_step import gradient
from models.gemma import logits_by
from models.policy import Policy
from tests.helpers import TINY3, tiny_ids, tiny_params
from tests.oracle_distillation import bucketed, distillation, generalised_jsd, softmax

PROMPT, C, B = 3, 8, 4
MASK_BT = np.array([
    [0, 1, 1] + [1] * 8,
    [1, 1, 1] + [1] * 3 + [0] * 5,
    [0, 0, 1] + [1] * 6 + [0] * 2,
    [1, 1, 1] + [1] * 1 + [0] * 7,
])  # fmt: skip
MIXED = Distillation(beta=0.3, temperature=1.5, student_share=0.0, coef=1.3, sft_coef=0.4, top_k=0)
CASES = {
    "gkd": DISTILLATIONS["gkd"],
    "kd": DISTILLATIONS["kd"],
    "reverse": dataclasses.replace(DISTILLATIONS["gkd"], beta=1.0),
    "mixed": MIXED,
    "top 5": dataclasses.replace(MIXED, top_k=5),
    "top 5 forward": dataclasses.replace(DISTILLATIONS["kd"], top_k=5),
}


@functools.cache
def models():
    """A student, and a teacher with three rows more in its table."""
    student = Policy(config=TINY3, params=tiny_params("gemma3"))
    random = np.random.RandomState(5)
    params = jax.tree.map(
        lambda x: x + 0.3 * np.float32(random.standard_normal(x.shape)), student.params
    )
    table_VD = params["embedder"]["table"]
    more = np.float32(random.standard_normal((3, table_VD.shape[1])))
    params = {**params, "embedder": {"table": jnp.concatenate([table_VD, more])}}
    config = dataclasses.replace(TINY3, vocab_size=TINY3.vocab_size + 3)
    return student, Policy(config=config, params=params)


def logits_of(policy, params=None):
    """All logits before the completions' tokens."""
    variables = {"params": policy.params if params is None else params}
    ids_BT = jnp.array(tiny_ids(B, PROMPT + C))
    hidden_BTD, _ = policy.module.apply(variables, ids_BT, jnp.array(MASK_BT))
    table_VD = variables["params"]["embedder"]["table"][: TINY3.vocab_size]
    return logits_by(policy.config, table_VD, hidden_BTD[:, -C - 1 : -1])


def rows_of(objective, own, parts=1):
    """The rows of an update, with what the teacher says of them."""
    _, teacher = models()
    tokens = jnp.array(tiny_ids(B, PROMPT + C)), jnp.array(MASK_BT)
    said = lessons_of_rows(
        teacher.variables, *tokens, module=teacher.module, vocab=TINY3.vocab_size, completion=C,
        temperature=objective.temperature, top_k=objective.top_k, parts=parts,
    )  # fmt: skip
    counts_BC = jnp.float32(MASK_BT[:, -C:])
    return with_weights(Taught(*tokens, counts_BC, counts_BC, counts_BC, **said), own)


def found(objective, own=False, microbatches=1, rows=None):
    """The gradient and the metrics."""
    student, teacher = models()
    lesson = Lesson(module=student.module, teacher=teacher.config, objective=objective)
    frozen = student_of(student, teacher, objective).frozen
    loss = make_distillation_loss(lesson)
    rows = rows_of(objective, own) if rows is None else rows
    grads, metrics = gradient(loss, student.params, frozen, rows, microbatches)
    return grads, metrics.flat()


def wanted(objective, own, params=None):
    student, teacher = models()
    options = dataclasses.asdict(objective)
    del options["student_share"]
    return distillation(
        np.asarray(logits_of(student, params)), np.asarray(logits_of(teacher)),
        np.array(tiny_ids(B, PROMPT + C))[:, -C:], MASK_BT[:, -C:], own, **options,
    )  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_against_float64(case, own):
    _, metrics = found(CASES[case], own)
    loss, quarters = wanted(CASES[case], own)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=2e-5)
    for number, mean in enumerate(quarters, start=1):
        assert float(metrics[f"divergence/quarter_{number}"]) == pytest.approx(mean, rel=2e-5)
    assert len(set(quarters)) == 4 and ("nll" in metrics) == bool(CASES[case].sft_coef)


@pytest.mark.parametrize("case", CASES)
def test_gradients_by_differences(case):
    """Along a random direction of all parameters."""
    student, _ = models()
    grads, _ = found(CASES[case])
    random = np.random.RandomState(7)
    way = jax.tree.map(lambda x: np.float32(random.standard_normal(x.shape)), student.params)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, w: float(jnp.vdot(g, w)), grads, way)))

    def value(step):
        moved = jax.tree.map(lambda x, w: x + step * w, student.params, way)
        return wanted(CASES[case], False, moved)[0]

    assert slope == pytest.approx((value(3e-4) - value(-3e-4)) / 6e-4, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("case", ["mixed", "top 5"])
@pytest.mark.parametrize("microbatches", [2, 3, 4])
def test_rows_may_be_cut_and_filled_up(case, microbatches):
    grads, metrics = found(CASES[case])
    others, parts = found(
        CASES[case], microbatches=microbatches, rows=rows_of(CASES[case], False, microbatches)
    )
    for name, value in metrics.items():
        assert float(parts[name]) == pytest.approx(float(value), rel=1e-4), name
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_own_completions_are_no_targets():
    rows, own = rows_of(MIXED, False), rows_of(MIXED, True)
    assert not np.any(own.target_weight_BC) and np.any(rows.target_weight_BC)
    assert float(jnp.sum(rows.weight_BC)) == pytest.approx(1.0)
    counts = MASK_BT[:, -C:].reshape(B, 4, 2).sum(axis=(0, 2))
    np.testing.assert_allclose(
        np.asarray(rows.place_BC).reshape(B, 4, 2).sum(axis=(0, 2)), counts > 0, rtol=1e-6
    )


def test_the_teachers_likeliest_tokens():
    rows = rows_of(CASES["top 5"], False)
    t_BCV = softmax(np.asarray(logits_of(models()[1]), float) / 1.5)
    order = np.argsort(-t_BCV, axis=-1, kind="stable")[..., :5]
    np.testing.assert_array_equal(rows.top_ids_BCK, order)
    found_t = np.exp(np.asarray(rows.top_logprob_BCK))
    np.testing.assert_allclose(found_t, np.take_along_axis(t_BCV, order, axis=-1), rtol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_the_rest_is_one_more_token(beta):
    """By hand from two distributions, and never more than over all tokens."""
    p, t = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.4, 0.3, 0.2, 0.1]])
    ids = np.array([[0, 1]])
    kept = [jnp.log(jnp.float32(np.take_along_axis(x, ids, axis=-1))) for x in (p, t)]
    value = float(tail_divergence(beta, *kept)[0])
    hand = generalised_jsd(beta, bucketed(p, ids), bucketed(t, ids))[0]
    assert value == pytest.approx(hand, rel=1e-5)
    assert value < generalised_jsd(beta, p, t)[0]


def test_a_tail_of_nothing_is_finite():
    certain = jnp.array([[0.0, -100.0]])
    value, grad = jax.value_and_grad(lambda x: tail_divergence(0.5, x, certain)[0])(certain)
    assert np.isfinite(value) and np.isfinite(grad).all() and CERTAIN < 0


def test_presets():
    assert distillation_of({"preset": "gkd"}) == DISTILLATIONS["gkd"]
    assert distillation_of({"preset": "kd", "beta": 1.0}).beta == 1.0
    once = resolve({"preset": "kd", "top_k": 0})
    assert once["top_k"] == 0 and resolve(once) == once
    assert DISTILLATIONS["kd"].coef == pytest.approx(0.7 * 2.0**2)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"beta": 1.5}, "beta=1.5: expected a number from 0 on, at most 1.0"),
        ({"student_share": -0.1}, "student_share=-0.1: expected a number from 0 on, at most 1.0"),
        ({"coef": float("inf")}, "coef=inf: expected a number from 0 on, at most inf"),
        ({"temperature": 0.0}, "temperature=0.0: expected more than 0"),
        ({"top_k": -1}, "top_k=-1: expected 1 or more, or 0"),
        ({"coef": 0.0}, "coef=0 with sft_coef=0: nothing would be learnt"),
        ({"coef": 0.0, "sft_coef": 1.0}, "student_share=0.5 with coef=0: the student's own"),
    ],
)
def test_options_that_make_no_sense(changes, line):
    with pytest.raises(ValueError, match=line.replace("(", r"\(")):
        dataclasses.replace(DISTILLATIONS["gkd"], **changes)
