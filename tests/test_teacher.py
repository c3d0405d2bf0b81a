"""A teacher in the GRPO stage: its log-probs, with and without rewards, and that it goes on."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grpo.stages.grpo
from configs import base
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.rollout.frozen import frozen_programs, needs_of
from grpo.tools.hack import hack
from grpo.tools.preflight import preflight
from grpo.training.logprobs import Logprobs
from models.policy import logits
from tests.helpers import TINY3, tiny_ids
from tests.small_run import (
    REWARD,
    C,
    G,
    P,
    assert_same_run,
    launch,
    opened,
    rows,
    small,
    small_grpo,
    small_sft,
    stop_at,
    watched,
)
from tests.test_distillation import MASK_BT, models


def taught(**fields) -> base.ConfigDict:
    """A stage from the base that is told by the end of `sft`."""
    stage = small_grpo()
    stage.update(start="base", teacher="sft", evaluate_every=0)
    stage.update(fields)
    stage.loss.update(teacher_coef=1.0, kl_coef=0.0)
    return stage


def config_of() -> base.ConfigDict:
    """A teacher alone; one beside a reward, a reference and an adapter; another model."""
    config = small()
    config.stages.sft = small_sft()
    config.stages.alone = taught()
    config.stages.alone.rewards = {}
    config.stages.beside = taught(epochs=2, minibatches=2, iterations=2)
    config.stages.beside.loss.update(teacher_coef=0.5, kl_coef=0.1)
    config.stages.beside.lora.update(rank=2, alpha=4.0)
    config.stages.beside.sampling.temperature = 0.7
    config.stages.other = taught(teacher="stranger", iterations=1)
    config.stages.other.rewards[REWARD].weight = 0.0
    config.models.stranger = base.model(size="gemma3_micro", vocab=400)
    config.pipeline = ("sft", "alone", "beside", "other")
    return config


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing interrupts, and what its updates have learnt from, by stage."""
    batches, minibatch = [], grpo.stages.grpo.minibatch

    def seen(*words, **named):
        batches.append(minibatch(*words, **named))
        return batches[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.grpo, "minibatch", seen)
        assert launch(config_of(), folder / "straight") == 0
    assert len(batches) == 3 + 2 * 4 + 1
    return folder / "straight", {"alone": batches[:3], "beside": batches[3:11]}


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    workdir = folder / "stopped"
    for event in ("alone update 1", "beside update 1", "beside update 7", "other update 1"):
        with watched(stop_at(event)):
            assert launch(config_of(), workdir) == 75
    assert launch(config_of(), workdir) == 0
    assert_same_run(straight[0], workdir)


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(("stage", "temperature"), [("alone", 1.0), ("beside", 0.7)])
def test_what_the_teacher_says_of_the_tokens_that_were_sampled(straight, stage, temperature):
    """From all logits of the end of `sft`; and by how much the policy is above that."""
    workdir, batches = straight
    _, policies = opened(config_of(), workdir, io.StringIO())
    teacher, student = policies.end("sft"), policies.start(stage)
    for number, batch in enumerate(batches[stage]):
        ids_BT, mask_BC = np.asarray(batch.ids_BT), np.asarray(batch.completion_mask_BC) != 0
        told, own = (
            log_softmax(np.asarray(logits(one, ids_BT, batch.mask_BT)) / temperature)
            for one in (teacher, student)
        )
        at = np.arange(len(ids_BT))[:, None], np.arange(-C - 1, -1)[None], ids_BT[:, -C:]
        found = np.asarray(batch.teacher_logprob_BC)
        np.testing.assert_allclose(found[mask_BC], told[at][mask_BC], atol=2e-5)
        if number == 0:  # the policy is where it started
            row = next(row for row in rows(workdir, "metrics") if row["stage"] == stage)
            gap = (own[at] - told[at])[mask_BC].mean()
            assert row["teacher/kl"] == pytest.approx(gap, abs=2e-5) and abs(gap) > 1e-3


def test_without_rewards_the_teacher_alone_moves_it(straight):
    workdir, batches = straight
    found = [row for row in rows(workdir, "metrics") if row["stage"] == "alone"]
    assert [row["group/zero_variance"] for row in found] == [1.0] * 3
    assert all(row["reward/mean"] == row["reward/abstained"] == 0.0 for row in found)
    assert all(row["grad_norm"] > 1e-3 and row["update_norm"] > 0 for row in found)
    assert not any(np.asarray(batch.advantage_B).any() for batch in batches["alone"])
    assert all(np.asarray(batch.completion_mask_BC).any(axis=1).all() for batch in batches["alone"])
    for row in rows(workdir, "rollouts"):
        assert (row["total"] == row["advantage"] == 0) == (row["stage"] != "beside")
        assert set(row["reward"]) == (set() if row["stage"] == "alone" else {REWARD})


def test_a_teacher_that_is_the_policy_teaches_nothing(straight):
    """The stranger has the random weights of the same seed, and the reward no weight."""
    (row,) = [row for row in rows(straight[0], "metrics") if row["stage"] == "other"]
    assert abs(row["teacher/kl"]) < 1e-5 and row["grad_norm"] < 1e-4
    assert row[f"reward/{REWARD}/std"] > 0


def test_it_comes_nearer_to_its_teacher(folder):
    """From random weights to what six updates of SFT have made of them."""
    config = small()
    config.stages.sft, config.stages.alone = small_sft(), taught()
    config.stages.sft.update(steps=6, batch=8)
    config.stages.alone.update(iterations=12, prompts=8, group=4)
    config.stages.alone.rewards = {}
    config.stages.alone.optimizer.warmup = 0.0
    config.pipeline = ("sft", "alone")
    assert launch(config, folder / "nearer") == 0
    kl = [row["teacher/kl"] for row in rows(folder / "nearer", "metrics") if "teacher/kl" in row]
    assert kl[0] > 1.0 and np.mean(kl[-3:]) < 0.6 * kl[0], kl


def test_on_a_mesh(folder, straight):
    config = config_of()
    config.mesh.update(fsdp=2, tp=2)
    assert launch(config, folder / "mesh") == 0
    pairs = zip(rows(straight[0], "metrics"), rows(folder / "mesh", "metrics"), strict=True)
    for here, there in pairs:
        assert here.keys() == there.keys()
        for name in here.keys() & {"loss", "teacher/kl", "grad_norm"}:
            assert here[name] == pytest.approx(there[name], rel=5e-3, abs=2e-4), name


def test_what_is_lowered_is_what_runs(straight):
    lines = preflight(config_of().to_dict(), STAGES)
    for stage in ("alone", "beside", "other"):
        found = [line for line in lines if line.startswith(f"{stage}: teacher log-probs: ")]
        parts = 2 if stage == "beside" else 1
        assert len(found) == 1 and f": {P * G} rows of {64 + C} tokens in {parts} parts" in found[0]
    assert not any(line.startswith("alone: log-probs") for line in lines)


def test_tokens_that_only_the_teacher_has_are_left_out():
    """Its table has three rows more: the log-probs are over the student's tokens."""
    student, teacher = models()
    stage = taught(max_new_tokens=8, microbatches=2).to_dict()
    logprobs = Logprobs(module=student.module, temperature=0.7, with_entropy=True)
    shape_BT = jax.ShapeDtypeStruct(MASK_BT.shape, jnp.int32)
    program = frozen_programs(
        stage, needs_of(stage), logprobs, student, teacher, [shape_BT], logged=False
    )
    ids_BT = tiny_ids(*MASK_BT.shape)
    found = program["teacher log-probs"](teacher.variables, jnp.array(ids_BT), jnp.array(MASK_BT))
    z = np.asarray(logits(teacher, ids_BT, MASK_BT))[..., : TINY3.vocab_size] / 0.7
    told = log_softmax(z)[:, -9:-1]
    wanted = np.take_along_axis(told, ids_BT[:, -8:, None], axis=-1)[..., 0]
    mask_BC = MASK_BT[:, -8:] != 0
    np.testing.assert_allclose(np.asarray(found)[mask_BC], wanted[mask_BC], atol=2e-5)


@pytest.mark.parametrize(
    ("stage", "changes", "line"),
    [
        ("alone", {"teacher": "sftt"}, "teacher: 'sftt' is neither base nor a training stage"),
        ("alone", {"teacher": "beside"}, "teacher: 'beside' is neither base nor a training stage"),
        ("alone", {"teacher": 3}, "teacher=3: expected a text"),
        ("beside", {"teacher": None}, "loss.teacher_coef=0.5: there is no teacher: name one"),
        ("beside", {"loss": {"teacher_coef": 0.0}}, "teacher='sft': loss.teacher_coef=0.0 has it"),
        ("beside", {"loss": {"teacher_coef": None}}, "teacher='sft': loss.teacher_coef=0.0 has it"),
        ("beside", {"loss": {"teacher_coef": -1.0}}, "loss.teacher_coef=-1.0: expected a number"),
        (
            "beside",
            {"loss": {"ratio": "sequence"}},
            "loss.teacher_coef=0.5 has an advantage for each token, ratio='sequence' one ratio",
        ),
        (
            "beside",
            {"loss": {"ratio": "geometric"}},
            "loss.teacher_coef=0.5 has an advantage for each token, ratio='geometric' one ratio",
        ),
        ("beside", {"dynamic_sampling": "drop"}, "dynamic_sampling='drop': groups of equal rewar"),
        ("alone", {"loss": {"decoupled": True}}, "loss.decoupled=True: no reward has a weight"),
        ("other", {"shuffle_rewards": True}, "shuffle_rewards=True: no reward has a weight"),
        (
            "alone",
            {"curriculum": {"order": "promoted", "metric": "reward"}},
            "curriculum.metric='reward': no reward has a weight",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(stage, changes, line):
    config = config_of().to_dict()
    for name, value in changes.items():
        is_section = isinstance(value, dict)
        own = config["stages"][stage]
        own[name] = {**own[name], **value} if is_section else value
    (found,) = problems(config, STAGES)
    assert found.startswith(f"stages.{stage}.{line}")


def test_what_goes_together():
    """Nothing is said of rewards of which none has a weight, nor of one that only is shuffled."""
    config = config_of()
    config.stages.beside.update(shuffle_rewards=True)
    config.stages.alone.curriculum.update(order="promoted")
    assert problems(config.to_dict(), STAGES) == []
    config.stages.alone.loss.teacher_coef = 0.0
    config = config.to_dict()
    config["stages"]["alone"]["teacher"] = None
    (found,) = problems(config, STAGES)
    assert found == (
        "stages.alone.rewards: no entry has a weight: one needs another than 0, or the stage a "
        "teacher"
    )


def test_rewards_that_pay_nothing_are_not_looked_at_for_hacks():
    config = config_of()
    config.pipeline = ("sft", "alone", "other")
    assert hack(config.to_dict()) == ["no stage of the pipeline has rewards"]
