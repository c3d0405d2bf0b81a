"""The reward of a reward model, in a GRPO stage."""

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import grpo.stages.pairs
from configs import base
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.pipeline import STAGES
from grpo.rewards.scores import score
from grpo.rewards.table import reward_table, with_values
from grpo.runs.learned_reward import Learned
from grpo.runs.reward_models import reward_model_at_end
from tests.small_run import (
    assert_same_run,
    launch,
    opened,
    rows,
    small_grpo,
    stop_at,
    watched,
    workshop,
)
from tests.test_reward_model_stage import config_of, of_two_kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.pairs, "pairs_in", of_two_kinds)
        yield tmp_path_factory.mktemp("runs")


def learned_config(**options) -> base.ConfigDict:
    """GRPO with a reward model's reward beside another one."""
    config = config_of("compared")
    config.stages.grpo = stage = small_grpo()
    stage.start = "sft"
    given = {"model": "compared", "least_accuracy": 0.0, "whitened": True, "clip": 0.5, **options}
    stage.rewards.learned = base.reward(2.0, -1.0, 1.0, **given)
    config.pipeline = (*config.pipeline, "grpo")
    return config


@pytest.fixture(scope="module")
def straight(folder):
    """A run, and what went through its reward model."""
    seen, real = [], Learned.__call__

    def watched_call(self, batch):
        values = real(self, batch)
        seen.append((np.asarray(batch.ids_BT), np.asarray(batch.mask_BT), values.value_B))
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learned, "__call__", watched_call)
        assert launch(learned_config(), folder / "straight") == 0
    return folder / "straight", seen


def test_it_is_the_whitened_reward_of_the_tokens_as_sampled(straight):
    """Row by row without padding, the head by hand."""
    workdir, seen = straight
    _, policies = opened(learned_config(), workdir, io.StringIO())
    model = reward_model_at_end(policies, "compared")
    about = json.loads((workdir / "rewards" / "compared.json").read_text())
    written = [row["reward"]["learned"] for row in rows(workdir, "rollouts")]
    assert len(seen) == 3 and len(written) == sum(len(value_B) for *_, value_B in seen)
    assert written == pytest.approx([float(x) for *_, value_B in seen for x in value_B], abs=1e-6)
    ids_BT, mask_BT, value_B = seen[0]
    wanted = []
    for ids_T, mask_T in zip(ids_BT, mask_BT, strict=True):
        alone_1T = ids_T[mask_T != 0][None]
        hidden_1TD, _ = model.module.apply(model.policy.variables, alone_1T, np.ones_like(alone_1T))
        last_D = np.asarray(hidden_1TD[0, -1], float)
        reward_H = last_D @ np.asarray(model.head["w"], float) + np.asarray(model.head["b"])
        whitened = (reward_H.mean() - about["reward/mean"]) / about["reward/std"]
        wanted.append(min(max(whitened, -0.5), 0.5))
    np.testing.assert_allclose(value_B, wanted, atol=1e-4)
    assert min(wanted) < max(wanted)


def test_the_weighted_sum_of_both_is_compared(straight):
    for row in rows(straight[0], "rollouts"):
        both = row["reward"]["tag_format"] + 2.0 * row["reward"]["learned"]
        assert row["total"] == pytest.approx(both, abs=1e-6)


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    with watched(stop_at("grpo update 2")):
        assert launch(learned_config(), folder / "stopped") == 75
    assert launch(learned_config(), folder / "stopped") == 0
    assert_same_run(straight[0], folder / "stopped")


def test_a_model_that_knows_too_little_is_refused(folder):
    config = learned_config(least_accuracy=1.0)
    with pytest.raises(DataError, match=r"stages.grpo: compared is right about .* 100.0%: train"):
        launch(config, folder / "refused")
    assert "train it longer" in (folder / "refused" / "FAILED").read_text()
    assert not (folder / "refused" / "checkpoints" / "grpo").exists()


def test_without_whitening_it_is_the_reward_itself():
    reward_BH = np.array([[1.0, 3.0], [-9.0, 1.0]])
    model: Any = SimpleNamespace(policy=SimpleNamespace(variables=None), head=None)

    def program(*_):
        return reward_BH

    plain = Learned(model, cast(Any, program), mean=0.0, std=1.0, clip=3.0)
    batch: Any = SimpleNamespace(ids_BT=None, mask_BT=None)
    assert plain(batch).value_B.tolist() == [2.0, -3.0]
    assert plain._replace(mean=1.0, std=4.0)(batch).value_B.tolist() == [0.25, -1.25]


def test_values_that_are_there_are_taken_and_the_others_called():
    line = {"weight": 1.0, "low": -1.0, "high": 1.0}
    options = {"model": "m", "least_accuracy": 0.0, "whitened": True, "clip": 1.0}
    lines = [{"name": "learned", **line, "options": options}, {"name": "tag_format", **line}]
    examples = [{"answer": "1"}] * 2
    table = with_values(reward_table(lines), {"learned": np.array([0.5, 2.0])}, examples)
    scores = score(table, examples, ["", ""], seconds=5.0)
    assert scores.rewards["learned"][0] == 0.5 and np.isnan(scores.rewards["learned"][1])
    assert scores.reasons["learned"] == "ValueError: returned np.float64(2.0), outside [-1.0, 1.0]"
    assert not np.isnan(scores.rewards["tag_format"]).any()
    alone = score(reward_table(lines), examples, ["", ""], seconds=5.0)
    assert np.isnan(alone.rewards["learned"]).all() and "'given'" in alone.reasons["learned"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model": "sft"}, "rewards.learned.options.model='sft': is no stage of kind 'reward_mo"),
        ({"clip": 3.0}, "rewards.learned.options.clip=3.0: expected a number above 0 with -clip"),
        ({"clip": -0.5}, "rewards.learned.options.clip=-0.5: expected a number above 0 with -cl"),
        ({"whitened": 1}, "rewards.learned.options.whitened=1: expected True or False"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(options, line):
    (found,) = problems(learned_config(**options).to_dict(), STAGES)
    assert found.startswith(f"stages.grpo.{line}")


def test_its_model_stands_before_it():
    config = learned_config()
    config.pipeline = ("sft", "pairs", "grpo", "compared")
    (found,) = problems(config.to_dict(), STAGES)
    wanted = "stages.grpo.rewards.learned.options.model='compared': the stage must stand before it"
    assert found == wanted
