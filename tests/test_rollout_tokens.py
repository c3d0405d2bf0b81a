"""Rows of rollouts.jsonl with tokens: those of their completion, at their places, if asked for."""

import jax
import numpy as np
import pytest

import grpo.stages.grpo
from grpo.algorithms.groups import Groups
from grpo.rollout.rollouts_jsonl import with_changes, with_tokens
from grpo.storage.journal import read_journal
from models.policy import logits
from models.tokenizer import Tokenizer, train_tokenizer
from tests.small_run import C, G, P, launch, rows, small, small_grpo, workshop


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
    entropy_BC = np.array([[2.5, 0.00004, -1e-9], [1, 7, 7]], np.float32)
    shown = with_tokens([{"id": "x"}, {"id": "y"}], groups, entropy_BC, tokenizer)
    assert shown == [
        {"id": "x", "per_token": {
            "text": ["1", "2", ""],
            "sample_logprob": [-0.1235, -1.0, -2.0],
            "ref_logprob": [-4.0, -5.0, -6.0],
            "entropy": [2.5, 0.0, 0.0],
        }},
        {"id": "y", "per_token": {
            "text": ["2"], "sample_logprob": [-3.0], "ref_logprob": [-8.0], "entropy": [1.0],
        }},
    ]  # fmt: skip


def test_changes_by_hand():
    """A batch of rows 2, 0 and 1, of which the last one was emptied; row 3 is of no batch."""
    known = [{"id": n, "per_token": {"text": ["t"] * (n + 1)}} for n in range(4)]
    mask_BC = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    changes = {"x": np.array([[1.23456e-5, -2, 3], [0.5, 7, 7], [7, 7, 7]], np.float32)}
    shown = with_changes(known, np.array([2, 0, 1]), mask_BC, changes)
    assert [row["per_token"].get("x") for row in shown] == [
        [0.5], None, [1.235e-5, -2.0, 3.0], None,
    ]  # fmt: skip
    assert [row["id"] for row in shown] == [0, 1, 2, 3]
    assert all("x" not in row["per_token"] for row in known)  # which may be shown elsewhere


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
        assert set(known) == {"text", "sample_logprob", "old_logprob", "ref_logprob", "entropy"}
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


@pytest.mark.parametrize("late", [False, True])
def test_the_entropy_is_of_what_each_token_was_drawn_from(tmp_path, monkeypatch, late):
    """Against float64, out of the logits of who sampled: also where the updates come in between."""
    drawn, frozen = [], grpo.stages.grpo.frozen_logprobs

    def noted(programs, needs, policy, reference, teacher, rollout):
        variables = jax.tree.map(np.array, policy.trainable)  # an update takes the arrays
        drawn.append((policy.with_trained(variables), jax.tree.map(np.asarray, rollout)))
        return frozen(programs, needs, policy, reference, teacher, rollout)

    monkeypatch.setattr(grpo.stages.grpo, "frozen_logprobs", noted)
    config, stage = small(), small_grpo()
    stage.update(iterations=2, evaluate_every=0, staleness=int(late))
    stage.sampling.update(temperature=0.6, top_k=5)
    config.stages.grpo, config.pipeline, config.log.tokens = stage, ("grpo",), True
    with workshop():
        assert launch(config, tmp_path) == 0
    told, means = rows(tmp_path, "rollouts"), []
    assert len(drawn) == 2
    for number, (policy, rollout) in enumerate(drawn):
        z = np.asarray(logits(policy, rollout.ids_BT, rollout.mask_BT), np.float64) / 0.6
        p = np.exp(z - z.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        entropy_BC = -np.sum(p * np.log(p), axis=-1)[:, -C - 1 : -1]
        own = [row["per_token"]["entropy"] for row in told if row["iteration"] == number]
        assert len(own) == P * G
        masks = rollout.completion_mask_BC.astype(bool)
        for known, wanted_C, mask_C in zip(own, entropy_BC, masks, strict=True):
            np.testing.assert_allclose(known, wanted_C[mask_C], atol=1e-4)
        means.append(np.mean([x for known in own for x in known]))
    if not late:  # the metric is of the policy that learns: here the same
        assert abs(means[0] - means[1]) > 1e-3
        measured = [row["entropy"] for row in rows(tmp_path, "metrics")]
        np.testing.assert_allclose(measured, means, atol=1e-4)
