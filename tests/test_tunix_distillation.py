"""Our distillation against Tunix's of logits (references/tunix_distillation.py), with gradients.

    Tunix: α T² mean KL(t ‖ p) + (1 - α) mean CE    of softmax(z / T), and of softmax(z)

is ours with β = 0, coef = α T² and sft_coef = 1 - α: T² stands before the divergence, outside of
the log-softmax, and the labels are read at T = 1. Deviations, and how each is bridged:

    padding   Tunix averages over every position it is given, padding and prompts included, and
              has no mask. It is given the positions of the completions' tokens alone; in the case
              "full" there is no padding, and they are all that a completion has
    top K     Tunix renormalises K tokens and forgets the rest; ours keeps what they leave as a
              token. They are not comparable: tests/parity/test_tunix_teaching_defects.py has both
    labels    Tunix's are one-hot vectors that the caller makes
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distillation import Distillation, Taught, with_weights
from grpo.training.distill_losses import (
    Lesson,
    lessons_of_rows,
    make_distillation_loss,
    student_of,
)
from models.policy import Policy
from tests.references import tunix_distillation, tunix_models
from tests.references.tunix_distillation import CASES, TEACHER_SEED, WHOLE
from tests.references.tunix_layout import config_of
from tests.references.tunix_losses import NEW
from tests.test_tunix_losses import BOUND, gaps_of, small, stored_gradient


def objective_of(name: str) -> Distillation:
    """The case in our words."""
    case = tunix_distillation.case_of(name)
    return Distillation(
        beta=0.0,
        temperature=case["temperature"],
        student_share=0.0,
        coef=case["alpha"] * case["temperature"] ** 2,
        sft_coef=1 - case["alpha"],
        top_k=0,
    )


def policy_of(model: str, seed: int) -> Policy:
    """A small architecture with drawn weights."""
    return Policy(config=config_of(model), params=small(model, seed)[1])


@functools.cache
def ours(name: str):
    """Our metrics and gradient for a case."""
    case, objective = tunix_distillation.case_of(name), objective_of(name)
    student, teacher = policy_of(case["model"], 0), policy_of(case["teacher"], TEACHER_SEED)
    ids_BT, mask_BT = map(jnp.asarray, tunix_distillation.tokens(name))
    said = lessons_of_rows(
        teacher.variables, ids_BT, mask_BT, module=teacher.module, vocab=student.config.vocab_size,
        completion=NEW, temperature=objective.temperature, top_k=0, parts=1,
    )  # fmt: skip
    counts_BC = jnp.float32(mask_BT[:, -NEW:])
    rows = with_weights(Taught(ids_BT, mask_BT, counts_BC, counts_BC, counts_BC, **said), False)
    lesson = Lesson(module=student.module, teacher=teacher.config, objective=objective)
    frozen = student_of(student, teacher, objective).frozen
    loss = make_distillation_loss(lesson)
    grads, metrics = jax.grad(loss, has_aux=True)(student.params, frozen, rows)
    return {key: float(x) for key, x in metrics.flat().items()}, grads


def fixture() -> dict[str, np.ndarray]:
    """Everything that Tunix said."""
    return tunix_models.said("tunix_distillation")


def check_metrics(name: str, arrays) -> float:
    """Loss and metrics are Tunix's; the largest difference, relative where above 1."""
    metrics, _ = ours(name)
    squared = objective_of(name).temperature ** 2
    mine = {
        "loss": metrics["loss"],
        "distill/kl_div": metrics["divergence"],
        "distill/soft_loss": squared * metrics["divergence"],
    }
    if "nll" in metrics:
        mine["distill/hard_loss"] = metrics["nll"]
    gaps = {key: abs(a - arrays[key]) / max(1.0, abs(arrays[key])) for key, a in mine.items()}
    assert max(gaps.values()) <= BOUND, gaps
    return float(max(gaps.values()))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_metrics(name):
    keys = ("loss", *tunix_distillation.METRICS)
    check_metrics(name, {key: fixture()[f"{name}:{key}"] for key in keys})


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    assert gaps_of(ours(name)[1], fixture()[f"{name}:projected"]) <= BOUND


@pytest.mark.parametrize("name", WHOLE)
def test_every_number_of_the_gradient(name):
    grads = ours(name)[1]
    assert max(stored_gradient(grads, fixture(), name).values()) <= BOUND
