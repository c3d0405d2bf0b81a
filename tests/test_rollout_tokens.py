"""Rows of rollouts.jsonl with tokens: those of their completion, at their places, if asked for."""

import numpy as np
import pytest

from grpo.algorithms.groups import Groups
from grpo.rollout.rollouts_jsonl import with_tokens
from grpo.storage.journal import read_journal
from models.tokenizer import Tokenizer, train_tokenizer
from tests.small_run import launch, small, small_grpo, workshop


def test_tokens_by_hand():
    """Prompts of two places, completions of three; the second ends after one token."""
    tokenizer = Tokenizer(train_tokenizer(["abc abc 123"] * 20, 300))
    a, b = (tokenizer.encode(text, bos=False)[0] for text in ("1", "2"))
    groups = Groups(
        ids_BT=np.array([[0, 9, a, b, tokenizer.eos_id], [9, 9, b, 0, 0]]),
        mask_BT=np.zeros((2, 5)),
        completion_mask_BC=np.array([[1, 1, 1], [1, 0, 0]]),
        truncated_B=np.zeros(2),
        sample_logprob_BC=np.array([[-0.123456, -1, -2], [-3, 7, 7]], np.float32),
        ref_logprob_BC=np.array([[-4, -5, -6], [-8, 7, 7]], np.float32),
    )
    rows = with_tokens([{"id": "x"}, {"id": "y"}], groups, tokenizer)
    assert rows == [
        {"id": "x", "per_token": {
            "text": ["1", "2", ""],
            "sample_logprob": [-0.1235, -1.0, -2.0],
            "ref_logprob": [-4.0, -5.0, -6.0],
        }},
        {"id": "y", "per_token": {
            "text": ["2"], "sample_logprob": [-3.0], "ref_logprob": [-8.0],
        }},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run without tokens and with them."""
    folder = tmp_path_factory.mktemp("runs")
    for is_on in (False, True):
        config = small()
        config.stages.grpo = small_grpo()
        config.stages.grpo.update(iterations=1, minibatches=2, evaluate_every=0)
        config.pipeline = ("grpo",)
        config.log.tokens = is_on
        with workshop():
            assert launch(config, folder / str(is_on)) == 0
    return folder / "False", folder / "True"


def test_tokens_change_nothing_else(runs):
    off, on = runs
    assert (off / "metrics.jsonl").read_bytes() == (on / "metrics.jsonl").read_bytes()
    there, here = (read_journal(run / "rollouts.jsonl") for run in runs)
    for row in here:
        known = row.pop("per_token")
        assert {len(column) for column in known.values()} == {row["tokens"]}
        assert set(known) == {"text", "sample_logprob", "old_logprob", "ref_logprob"}
        # Sampler and trainer are the same model, and the reference is where training begins.
        np.testing.assert_allclose(known["sample_logprob"], known["old_logprob"], atol=2e-4)
        np.testing.assert_allclose(known["ref_logprob"], known["old_logprob"], atol=2e-4)
        if "\ufffd" not in row["completion"] and "\ufffd" not in "".join(known["text"]):
            stopped = row["finish"] == "stop"
            assert row["completion"] == "".join(known["text"][: -1 if stopped else None])
    assert there == here


def test_a_run_leaves_its_report(runs):
    text = (runs[1] / "report.html").read_text()
    assert '<p class="state finished">' in text and '"ref_logprob"' in text
    assert "not measured yet" in text and '<section id="curves">' in text
