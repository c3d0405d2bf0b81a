"""Distillation as a stage: who is taught what, and that it goes on."""

import dataclasses
import io
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.pipeline import STAGES
from grpo.runs.teachers import require_same_tokens
from grpo.tools.preflight import preflight
from models.gemma import init_params
from models.loading import save_hf
from models.policy import Policy
from models.tokenizer import Tokenizer, train_tokenizer
from tests.helpers import SHALLOW, assert_trees_equal
from tests.small_run import (
    C,
    assert_same_run,
    launch,
    opened,
    rows,
    small,
    small_sft,
    stop_at,
    watched,
)


def small_distill(**changes) -> base.ConfigDict:
    stage = base.distill()
    stage.update(start="base", teacher="sft", steps=6, batch=4, microbatches=2)
    stage.update(max_completion=40, data="worked")
    stage.optimizer.learning_rate = 1e-2
    stage.loss.update(**changes)
    return stage


def config_of() -> base.ConfigDict:
    """Both sources of rows, by the whole vocabulary and by eight tokens, and another teacher."""
    config = small()
    config.stages.sft = small_sft()
    config.datasets.worked = base.dataset(levels=(1,), train_examples=24, test_examples=4)
    config.datasets.worked.update(max_prompt=64, min_kept=0.1)
    config.stages.gkd = small_distill(sft_coef=0.5)
    config.stages.top = small_distill(top_k=8, student_share=0.0, beta=0.0)
    config.stages.top.lora.update(rank=2, alpha=4.0)
    config.stages.other = small_distill(student_share=1.0)
    config.stages.other.update(teacher="stranger", steps=1, max_completion=C)
    config.models.stranger = base.model(size="gemma3_micro", vocab=400)
    config.pipeline = ("sft", "gkd", "top", "other")
    return config


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config_of(), folder / "straight") == 0
    return folder / "straight"


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    workdir = folder / "stopped"
    for event in ("gkd update 1", "gkd update 3", "top update 2"):
        with watched(stop_at(event)):
            assert launch(config_of(), workdir) == 75
    assert launch(config_of(), workdir) == 0
    assert_same_run(straight, workdir)


def test_own_completions_for_a_share_of_the_updates(straight):
    """Half of them, by a coin; all; none."""
    found = rows(straight, "metrics")
    own = {name: [row["own"] for row in found if row["stage"] == name and "own" in row]
           for name in ("gkd", "top", "other")}  # fmt: skip
    assert own["top"] == [0.0] * 6 and own["other"] == [1.0]
    assert own["gkd"] == [float(np.random.RandomState([0, n]).uniform() < 0.5) for n in range(6)]
    assert set(own["gkd"]) == {0.0, 1.0}
    for row in found:
        if "divergence" in row:
            # The stranger has the random weights of the same seed: it is the student.
            assert (row["divergence"] > 0) == (row["stage"] != "other")
            assert "divergence/quarter_4" in row
            assert ("nll" in row) == (row["stage"] == "gkd")
            assert row.get("nll", 1.0) == 0.0 or not row["own"] or row["stage"] != "gkd"


def test_the_student_moves_and_the_teacher_does_not(straight):
    _, policies = opened(config_of(), straight, io.StringIO())
    assert np.any(
        np.asarray(policies.end("gkd").params["final_norm"]["scale"])
        != np.asarray(policies.base.params["final_norm"]["scale"])
    )
    assert_trees_equal(policies.end("top").params, policies.base.params)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), policies.start("top").adapter,
        policies.end("top").adapter,
    )  # fmt: skip
    assert any(jax.tree.leaves(moved))
    stranger = policies.end("stranger")
    assert policies.end("stranger") is stranger and stranger is not policies.base


def test_the_teacher_of_itself_teaches_nothing(folder):
    """The divergence is 0, and so is the gradient."""
    config = config_of()
    config.stages.gkd.update(teacher="base")
    config.stages.gkd.loss.update(sft_coef=0.0, student_share=0.0)
    config.stages.gkd.update(steps=1)
    config.pipeline = ("gkd",)
    assert launch(config, folder / "itself") == 0
    (row,) = [row for row in rows(folder / "itself", "metrics") if "divergence" in row]
    assert abs(row["divergence"]) <= 1e-6 and row["grad_norm"] <= 1e-4


def test_on_a_mesh(folder, straight):
    config = config_of()
    config.mesh.update(fsdp=2, tp=2)
    assert launch(config, folder / "mesh") == 0
    for here, there in zip(
        rows(straight, "metrics"), rows(folder / "mesh", "metrics"), strict=True
    ):
        for name in here.keys() - {"stage", "step"}:
            assert here[name] == pytest.approx(there[name], rel=5e-3, abs=1e-4), name


def test_what_is_lowered_is_what_runs(straight):
    lines = preflight(config_of().to_dict(), STAGES)
    assert any(line.startswith("gkd: lessons: 4 rows of") for line in lines)
    assert any(line.startswith("other: rollout: 4 prompts of") for line in lines)


def policy_with(tokenizer, vocab_size=400) -> Any:
    config = types.SimpleNamespace(vocab_size=vocab_size)
    return types.SimpleNamespace(tokenizer=tokenizer, config=config)


def test_other_tokenizers_are_refused_with_the_reason():
    ours, theirs = (
        Tokenizer(train_tokenizer([text * 3], 320)) for text in ("some words here", "0123 others")
    )
    require_same_tokens("s", policy_with(ours), policy_with(ours, 401))
    with pytest.raises(DataError, match=r"stages.s.teacher: its tokenizer is another one \(id \d"):
        require_same_tokens("s", policy_with(ours), policy_with(theirs))
    with pytest.raises(DataError, match="knows 399 tokens, the student 400"):
        require_same_tokens("s", policy_with(ours), policy_with(ours, 399))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"teacher": "gdk"}, "stages.gkd.teacher: 'gdk' is neither base nor a training stage"),
        ({"loss": {"preset": "dpo"}}, "stages.gkd.loss.preset='dpo': expected one of gkd, kd"),
        ({"loss": {"beta": 2.0}}, "stages.gkd.loss.beta=2.0: expected a number from 0 on, at mo"),
        ({"sampling": {"temperature": 0}}, "stages.gkd.sampling.temperature=0: completions of t"),
        ({"microbatches": 5}, "stages.gkd.microbatches=5: there are only 4 rows (batch)"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes, line):
    config = config_of()
    config.stages.gkd.update(changes)
    (found,) = problems(config.to_dict(), STAGES)
    assert found.startswith(line)


def test_they_are_refused_before_anything_runs(folder, capsys):
    """A directory with another tokenizer, as a teacher."""
    config, stranger = config_of(), folder / "stranger"
    other = Tokenizer(train_tokenizer(["0123 others of other words"], 400))
    sizes = dataclasses.replace(SHALLOW, vocab_size=other.vocab_size)
    params = init_params(sizes, jax.random.key(0), jnp.float32)
    save_hf(Policy(config=sizes, params=params, tokenizer=other), stranger)
    config.models.stranger.path = str(stranger)
    assert launch(config, folder / "strange") == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("error: stages.other.teacher: its tokenizer is another one (id ")
    assert not (folder / "strange" / "metrics.jsonl").exists()


def test_a_model_of_a_stages_name_is_refused():
    config = config_of()
    config.models.gkd = base.model()
    config.models.odd = base.model()
    config.models.odd.size = "gemma9"
    found = problems(config.to_dict(), STAGES)
    assert [line.split(":")[0] for line in found] == ["models.gkd", "models.odd.size='gemma9'"]


def test_no_solution_that_fits(folder):
    config = config_of()
    config.stages.gkd.update(max_completion=2)
    config.pipeline = ("sft", "gkd")
    with pytest.raises(DataError, match="solutions of at most 2 tokens"):
        launch(config, folder / "short")
