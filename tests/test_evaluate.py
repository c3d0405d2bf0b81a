"""Evaluation: batches change nothing, rows say what was written, training notices nothing."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from grpo.data.templates import prompt_ids
from grpo.evaluation.evaluate import (
    SAMPLED_STEP,
    evaluate_greedy,
    evaluate_samples,
    sample_all,
)
from grpo.rollout.generate import GREEDY, Sampler, texts_of
from grpo.rollout.sampler import row_keys
from grpo.runs.run import StoppedError
from tests import tiny_run
from tests.helpers import logits_of
from tests.tiny_run import EXAMPLES

NEW = 6
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
FIVE = EXAMPLES[:5]


def setting(run):
    return run.setting(run.datasets["data"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.run_of(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def policy():
    return tiny_run.policy_of()


@pytest.fixture(scope="module")
def greedily(run, policy):
    """Metrics and rows by the size of the batch, measured once."""
    return functools.cache(
        lambda batch: evaluate_greedy(policy, FIVE, setting(run), batch=batch, max_new_tokens=NEW)
    )


@pytest.fixture(scope="module")
def sampled(run, policy):
    return functools.cache(
        lambda batch: evaluate_samples(
            policy, FIVE, setting(run), batch=batch, max_new_tokens=NEW, samples=3,
            sampling=SAMPLING, ks=(1, 3),
        )
    )  # fmt: skip


def test_batches_change_nothing(greedily, sampled):
    """5 at once; 2 at a time, the last batch filled up; as many as there are, of 99."""
    assert greedily(2) == greedily(5) == greedily(99)
    # 15 samples at once; those of two problems, then of two, then of one that is filled up.
    assert sampled(15) == sampled(6)
    texts = [row["completion"] for row in sampled(15)[1]]
    assert len(texts) == 15 and len(set(texts)) > 10
    assert len({row["completion"] for row in greedily(5)[1]}) > 1


def prompts(policy, run):
    return [
        prompt_ids(policy.tokenizer, example, run.datasets["data"].template) for example in FIVE
    ]


def test_greedy_is_the_likeliest_continuation(run, policy, greedily):
    """By one forward pass over prompts and completions: each token is the likeliest."""
    rollout = Sampler(policy, run.config["data"]["buckets"]).sample(
        prompts(policy, run), row_keys(0, "evaluate", 0, np.arange(5)), sampling=GREEDY, group=1,
        max_new_tokens=NEW,
    )  # fmt: skip
    ids, mask = np.asarray(rollout.ids_BT), np.asarray(rollout.mask_BT)
    logits = np.asarray(logits_of(policy.module, policy.variables, ids, mask))
    own = np.asarray(rollout.completion_mask_BC)
    np.testing.assert_array_equal(ids[:, -NEW:][own], logits[:, -NEW - 1 : -1].argmax(axis=-1)[own])
    for row, drawn, is_own in zip(greedily(5)[1], ids[:, -NEW:], own, strict=True):
        tokens = drawn[is_own].tolist()
        has_end = tokens[-1] in policy.tokenizer.stop_ids
        assert row["tokens"] == len(tokens) and row["finish"] == ("stop" if has_end else "length")
        assert row["completion"] == policy.tokenizer.decode(tokens[:-1] if has_end else tokens)


def test_rows_of_greedy_completions(greedily):
    metrics, rows = greedily(5)
    assert [row["id"] for row in rows] == [e["id"] for e in FIVE]
    assert [row["question"] for row in rows] == [e["question"] for e in FIVE]
    assert [row["gold"] for row in rows] == [e["answer"] for e in FIVE]
    assert all(row["sample"] == 0 for row in rows)
    assert metrics["problems"] == 5
    assert metrics["length/mean"] == np.mean([row["tokens"] for row in rows])
    assert metrics["truncated"] == np.mean([row["finish"] == "length" for row in rows])


def test_rows_of_samples(greedily, sampled):
    metrics, rows = sampled(15)
    assert [row["id"] for row in rows] == [e["id"] for e in FIVE for _ in range(3)]
    assert [row["sample"] for row in rows] == [0, 1, 2] * 5
    assert metrics["sampled/length/mean"] == np.mean([row["tokens"] for row in rows])
    looks = {f"sampled/{name}" for name in greedily(5)[0]}
    votes = ("pass@1", "pass@3", "maj@1", "maj@3", "mean@3")
    ends = ("", "/low", "/high")
    assert set(metrics) == {
        *looks, *(f"{vote}{end}" for vote in votes for end in ends), "maj@1/strings",
        "maj@3/strings",
    }  # fmt: skip
    assert metrics["sampled/problems"] == 5


def test_rows_say_what_exactly_was_asked(run, policy, greedily, sampled):
    """The ids that the sampler was given, and their text, with the first sample of a problem."""
    rows = [*greedily(2)[1], *sampled(6)[1]]
    first = [row for row in rows if row["sample"] == 0]
    assert [row["prompt_ids"] for row in first] == prompts(policy, run) * 2
    for row in first:
        assert policy.tokenizer.decode(row["prompt_ids"]) == row["prompt"]
        assert row["prompt"] == (
            f"<start_of_turn>user\n{row['question']}<end_of_turn>\n<start_of_turn>model\n"
        )
    assert not any("prompt" in row or "prompt_ids" in row for row in rows if row["sample"])


def test_rows_have_the_domain_of_their_example(run, policy):
    examples = [{**EXAMPLES[0], "domain": "math"}, EXAMPLES[1], {**EXAMPLES[2], "domain": None}]
    _, rows = evaluate_greedy(policy, examples, setting(run), batch=3, max_new_tokens=NEW)
    assert [row.get("domain") for row in rows] == ["math", None, None]
    assert all("domain" not in row for row in rows[1:])


def test_what_is_right_counts(run, policy, monkeypatch):
    """Texts put into the sampler's mouth: 2 of 3 samples right, then none, then all."""
    said = iter(["It is 2", "<answer>2</answer>", "3", "no", "7", "2", *["12"] * 6])
    monkeypatch.setattr(
        "grpo.evaluation.evaluate.texts_of",
        lambda rollout, tokenizer: [next(said) for _ in rollout.length_B],
    )
    metrics, rows = evaluate_samples(
        policy, EXAMPLES[:3], setting(run), batch=6, max_new_tokens=NEW, samples=3,
        sampling=SAMPLING, ks=(1, 2, 3),
    )  # fmt: skip
    assert [row["gold"] for row in rows[::3]] == ["2", "6", "12"]
    assert [row["right"]["lenient"] for row in rows] == [1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert metrics["pass@1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert metrics["pass@2"] == metrics["pass@3"] == pytest.approx(2 / 3)
    assert metrics["maj@3"] == pytest.approx(2 / 3)
    assert metrics["sampled/accuracy/lenient"] == pytest.approx(5 / 9)
    assert metrics["sampled/accuracy/strict"] == 0
    assert metrics["sampled/accuracy/demo"] == pytest.approx(1 / 9)


def test_a_completion_is_that_of_its_place_and_seed(run, policy, sampled):
    """The same first problems, whatever follows; another place or seed draws others."""

    def texts(examples, run=run):
        _, rows = evaluate_samples(
            policy, examples, setting(run), batch=6, max_new_tokens=NEW, samples=3,
            sampling=SAMPLING, ks=(1,),
        )  # fmt: skip
        return [row["completion"] for row in rows]

    five = [row["completion"] for row in sampled(15)[1]]
    assert texts(FIVE[:2]) == five[:6]
    assert texts([FIVE[1], FIVE[0]]) != five[3:6] + five[:3]
    other = dataclasses.replace(run, config={**run.config, "seed": 1})
    assert texts(FIVE, other) != five


def test_what_training_draws_is_another_matter(run, policy):
    """The same rows of the same step, for another purpose."""
    sampler = Sampler(policy, run.config["data"]["buckets"])

    def texts(purpose, step):
        return texts_of(sampled_by(sampler, policy, run, purpose, step), policy.tokenizer)

    drawn = {(p, s): tuple(texts(p, s)) for p in ("train", "evaluate") for s in (0, 1)}
    assert len(set(drawn.values())) == 4
    assert tuple(texts("train", 0)) == drawn["train", 0]


def sampled_by(sampler, policy, run, purpose, step):
    return sampler.sample(
        prompts(policy, run), row_keys(run.seed, purpose, step, np.arange(15)), sampling=SAMPLING,
        group=3, max_new_tokens=NEW,
    )  # fmt: skip


def test_evaluation_has_keys_of_its_own(run, policy, sampled):
    """Its samples are those of its purpose, by the place of each."""
    sampler = Sampler(policy, run.config["data"]["buckets"])
    rollout = sampled_by(sampler, policy, run, "evaluate", SAMPLED_STEP)
    texts = texts_of(rollout, policy.tokenizer)
    assert texts == [row["completion"] for row in sampled(15)[1]]


def test_nothing_of_the_policy_moves(run, policy):
    before = jax.tree.map(np.array, policy.params)
    evaluate_greedy(policy, FIVE, setting(run), batch=5, max_new_tokens=NEW)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(policy.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mean_log_probs_are_of_the_tokens_there_are(run, policy):
    """Sum over the completion by its length; the part of a filled-up batch is cut off."""
    answers = sample_all(
        policy,
        FIVE,
        setting(run),
        batch=2,
        group=3,
        step=1,
        sampling=SAMPLING,
        max_new_tokens=NEW,
    )
    sampler = Sampler(policy, run.config["data"]["buckets"])
    rollout = sampled_by(sampler, policy, run, "evaluate", 1)
    mask, logprob = np.asarray(rollout.completion_mask_BC), np.asarray(rollout.sample_logprob_BC)
    wanted = [row[own].mean() for row, own in zip(logprob, mask, strict=True)]
    np.testing.assert_allclose(answers.mean_logprob_E, wanted, rtol=1e-5)
    assert answers.length_E.tolist() == mask.sum(axis=1).tolist()
    assert answers.truncated_E.shape == (15,) and (answers.mean_logprob_E < 0).all()
    assert len(answers.texts) == 15 and answers.prompts == prompts(policy, run)


def test_a_wish_to_stop_is_heard_between_batches(tmp_path, policy):
    run = tiny_run.run_of(tmp_path)
    run.stop.reason = "stopped by a test"
    with pytest.raises(StoppedError, match="stopped by a test"):
        evaluate_greedy(policy, FIVE, setting(run), batch=5, max_new_tokens=NEW)
