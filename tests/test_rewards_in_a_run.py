"""The reward table of a stage, made for the training examples that the stage reads."""

import pytest

from configs import base
from grpo.rewards.table import FITS
from tests.small_run import REWARD, launch, small, small_grpo, workshop


def test_a_stage_fits_its_table_to_what_it_trains_on(tmp_path, monkeypatch):
    """To the training examples alone, with the options of the entry."""

    def fit(train, options):
        raise RuntimeError(f"{len(train)} examples, {train[0]['id']}, {options}")

    monkeypatch.setitem(FITS, REWARD, fit)
    config = small()
    config.stages.grpo = small_grpo()
    config.pipeline = ("grpo",)
    message = "24 examples, arithmetic-0-train-0, {}"
    with workshop(), pytest.raises(RuntimeError, match=message):
        launch(config, tmp_path / "run")


def test_a_domain_that_the_training_examples_do_not_have(tmp_path):
    config = small()
    config.stages.grpo = small_grpo()
    config.stages.grpo.rewards[REWARD] = base.reward(1.0, 0.0, 1.0, domains=("law",))
    config.pipeline = ("grpo",)
    with workshop(), pytest.raises(ValueError, match=rf"{REWARD}.domains: no training example"):
        launch(config, tmp_path / "run")
