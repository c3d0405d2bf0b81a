"""Reward models as stages: what they learn, how they are measured, and that they go on."""

import contextlib
import io
import json

import jax
import numpy as np
import pytest

import grpo.stages.pairs
import grpo.stages.reward_model
from configs import base
from grpo.algorithms.reward_modeling import Compared, Valued
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.data.pairing import Tokens
from grpo.evaluation.reward_models import Group, Pair, best_of, pair_accuracy
from grpo.pipeline import STAGES
from grpo.runs.reward_models import reward_model_at_end, reward_model_at_start
from grpo.stages.pairs import Sampled
from grpo.stages.reward_model import batch_of, is_held_out, with_coins
from tests.helpers import assert_trees_equal
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
    workshop,
)

LOSSES = ("compared", "bce")


def of_two_kinds(group, stage, random):
    """A pair of each kind of a random model's completions; the first in the alphabet is right."""
    texts = sorted({one.text for one in group if one.text.strip()})
    if len(texts) < 3:
        return []
    first, second, last = (Sampled(text, 0, False, True, True) for text in (*texts[:2], texts[-1]))
    return [("wrong", first, last), ("number", first, second)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.pairs, "pairs_in", of_two_kinds)
        yield tmp_path_factory.mktemp("runs")


def small_reward_model(loss: str) -> base.ConfigDict:
    stage = base.reward_model()
    stage.update(
        policy="sft", steps=3, batch=4, microbatches=2, max_completion=C + 8, objective=loss
    )
    stage.update(held_out=0.4, heads={"correctness": ("wrong",), "flow": ("number",)})
    stage.lora.update(rank=2, alpha=4.0)
    stage.optimizer.learning_rate = 1e-2
    return stage


def config_of(*losses: str) -> base.ConfigDict:
    config = small()
    config.data.min_kept = 0.5
    config.stages.sft = small_sft()
    config.stages.pairs = pairs = base.pairs()
    pairs.update(policy="sft", prompts=12, batch=4, group=4, max_new_tokens=C, least=1)
    pairs.against = ("wrong", "number")
    for loss in losses:
        config.stages[loss] = small_reward_model(loss)
    config.pipeline = ("sft", "pairs", *losses)
    return config


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config_of(*LOSSES), folder / "straight") == 0
    return folder / "straight"


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    workdir, config = folder / "stopped", config_of(*LOSSES)
    for event in ("compared update 2", "bce update 1"):
        with watched(stop_at(event)):
            assert launch(config, workdir) == 75
    assert launch(config, workdir) == 0
    assert_same_run(straight, workdir)
    for loss in LOSSES:
        file = f"rewards/{loss}.json"
        assert (straight / file).read_bytes() == (workdir / file).read_bytes()


def test_it_is_measured_on_prompts_it_has_not_learnt(straight):
    for loss in LOSSES:
        stage = config_of(*LOSSES).stages[loss]
        found = json.loads((straight / "rewards" / f"{loss}.json").read_text())
        made = rows(straight / "preferences", "pairs")
        held = [row for row in made if is_held_out(row, stage)]
        assert 0 < found["accuracy/count"] <= len(held) < len(made)
        assert found["accuracy/count"] == (
            found["accuracy/wrong/count"] + found["accuracy/number/count"]
        )
        assert found["accuracy/low"] <= found["accuracy"] <= found["accuracy/high"]
        prompts = {row["prompt"] for row in rows(straight / "preferences", "pairs.samples")}
        assert 0 < found["best of N/count"] < len(prompts) and found["N"] == 4


def test_no_held_out_pair_is_in_an_update(folder, straight):
    seen, real = [], grpo.stages.reward_model.batch_of

    def watched_batch(pairs, stage, buckets):
        seen.extend(pairs)
        return real(pairs, stage, buckets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.reward_model, "batch_of", watched_batch)
        assert launch(config_of("compared"), folder / "seen") == 0
    assert len(seen) == 12 and not any(one.is_held_out for one in seen)
    count = len(rows(straight / "preferences", "pairs"))
    found = json.loads((straight / "rewards" / "compared.json").read_text())
    assert {one.kind for one in seen} == {"wrong", "number"} and found["accuracy/count"] < count


def test_a_head_and_an_adapter_are_trained_and_nothing_else(straight):
    _, policies = opened(config_of(*LOSSES), straight, io.StringIO())
    start, end = (of(policies, "compared") for of in (reward_model_at_start, reward_model_at_end))
    assert_trees_equal(start.policy.params, policies.end("sft").params)
    assert_trees_equal(end.policy.params, start.policy.params)
    assert not np.any(start.head["w"]) and np.all(np.any(np.asarray(end.head["w"]) != 0, axis=0))
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), start.policy.adapter, end.policy.adapter
    )
    assert any(jax.tree.leaves(moved))


def test_on_a_mesh(folder, straight):
    config = config_of(*LOSSES)
    config.mesh.update(fsdp=2, tp=2)
    assert launch(config, folder / "mesh") == 0
    for here, there in zip(
        rows(straight, "metrics"), rows(folder / "mesh", "metrics"), strict=True
    ):
        at_a_tie = {"preference/accuracy"} if abs(here.get("preference/ahead", 1)) < 1e-4 else set()
        for name in here.keys() - {"stage", "step"} - at_a_tie:
            assert here[name] == pytest.approx(there[name], rel=2e-3, abs=1e-4), name


def pair(head: int, is_held_out: bool = False, chosen=(6, 7), rejected=(8,)) -> Pair:
    return Pair(Tokens([5], list(chosen), list(rejected), 0.5), head, "wrong", is_held_out)


def test_arrays_by_hand():
    heads = {"heads": {"a": (), "b": ()}, "max_completion": 2}
    compared = batch_of([pair(1), pair(0)], {**heads, "objective": "compared"}, (1,))
    assert isinstance(compared, Compared)
    assert compared.ids_P2T.tolist() == [[[5, 6, 7], [5, 8, 0]]] * 2
    assert compared.mask_P2T.tolist() == [[[1, 1, 1], [1, 1, 0]]] * 2
    assert compared.head_P.tolist() == [1, 0] and compared.margin_P.tolist() == [0.5, 0.5]
    valued = batch_of([pair(1), pair(0)], {**heads, "objective": "mse"}, (1,))
    assert isinstance(valued, Valued)
    assert valued.ids_BT.tolist() == [[5, 6, 7], [5, 8, 0]] * 2
    assert valued.value_BH.tolist() == [[1, 1], [0, 0]] * 2
    # Of the rejected ones only the head of their kind is known.
    sixth = pytest.approx(1 / 6)
    assert valued.share_BH.tolist() == [[sixth] * 2, [0, sixth], [sixth] * 2, [sixth, 0]]


def test_coins_turn_about_half_of_the_pairs():
    pairs = [pair(0)] * 400
    turned = [one.tokens.chosen == [8] for one in with_coins(pairs, seed=0)]
    assert 150 < sum(turned) < 250
    assert turned == [one.tokens.chosen == [8] for one in with_coins(pairs, seed=0)]
    assert turned != [one.tokens.chosen == [8] for one in with_coins(pairs, seed=1)]


def by_last_token(given):
    """Reads rows as (last token, minus that) under two heads."""
    last_B = np.array([completion[-1] for _, completion in given], float)
    return np.stack([last_B, -last_B], axis=1)


def test_accuracy_by_hand():
    pairs = [
        pair(0, chosen=(1, 9), rejected=(2, 8)),  # right, same length
        pair(1, chosen=(9,), rejected=(8,)),  # wrong: the other head turns the sign
        pair(0, chosen=(9,), rejected=(1, 2, 3)),  # right, other length
        pair(0, chosen=(4,), rejected=(4,)),  # a tie is not right
    ]
    pairs[2] = pairs[2]._replace(kind="number")
    found = pair_accuracy(by_last_token, pairs, similar=0.1)
    assert found["accuracy"] == 0.5 and found["accuracy/count"] == 4
    assert found["accuracy/same length"] == pytest.approx(1 / 3)
    assert found["accuracy/number"] == 1.0 and found["accuracy/wrong"] == pytest.approx(1 / 3)


def test_best_of_n_by_hand():
    groups = [
        Group([([1], [3]), ([1], [7]), ([1], [5])], [False, True, False]),  # the best is right
        Group([([1], [9]), ([1], [2]), ([1], [1])], [False, True, True]),  # the best is wrong
    ]
    found = best_of(lambda given: by_last_token(given)[:, :1], groups)
    assert found["best of N"] == 0.5 and found["best of N/count"] == 2 and found["N"] == 3
    assert found["any of N"] == pytest.approx(0.5) and found["lift"] == pytest.approx(0.0)
    assert found["lift/high"] == pytest.approx(1.959964 * (2 / 3) / 2**0.5, rel=1e-5)
    assert best_of(by_last_token, []) == {}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"heads": {"a": "wrong"}}, "heads.a='wrong': expected a tuple of kinds of pairs"),
        ({"heads": {"a": (), "b": ("wrong",)}}, "heads.a=(): takes all kinds, and other heads no"),
        ({"heads": {"a": ("x",), "b": ("x",)}}, "heads.b: 'x' is of another head as well"),
        ({"objective": "hinge"}, "objective='hinge': expected one of compared, mse, huber, bce"),
        ({"policy": "pairs"}, "policy: 'pairs' is neither base nor a training stage before it"),
        ({"preferences": "sft"}, "preferences='sft': is neither of datasets nor a stage of kind"),
        ({"batch": 1}, "microbatches=2: there are only 1 rows (batch)"),
        ({"centre": -1.0}, "centre=-1.0: expected a number, at least 0"),
        ({"evaluate_every": 5}, "evaluate_every: unknown field"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes, line):
    config = config_of("compared").to_dict()
    config["stages"]["compared"] |= changes
    (found,) = problems(config, STAGES)
    assert found.startswith(f"stages.compared.{line}")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"held_out": 0.0}, "stages.compared: of .* pairs 0 are held out .held_out=0.0"),
        ({"heads": {"flow": ("number",)}}, "is of kind 'wrong', which no head learns"),
    ],
)
def test_pairs_that_cannot_be_learnt(folder, straight, changes, line):
    config = config_of("compared").to_dict()
    config["stages"]["compared"] |= changes
    with pytest.raises(DataError, match=line), contextlib.redirect_stdout(io.StringIO()):
        launch(base.ConfigDict(config), folder / str(changes)[2:8])


def test_the_summary_says_what_it_knows(straight):
    """A table with a line per model, the shares as they stand in its file."""
    text = (straight / "summary.md").read_text()
    for loss in LOSSES:
        found = json.loads((straight / "rewards" / f"{loss}.json").read_text())
        (line,) = [line for line in text.split("\n") if line.startswith(f"| {loss}")]
        assert f"| {100 * found['accuracy']:.1f} % ({100 * found['accuracy/low']:.0f} to" in line
        assert f"| {100 * found['accuracy/number']:.1f} % (" in line
        assert line.split("|")[-3:-1] == [f"    {100 * found['any of N']:.1f} % ", "   4 "]
    assert "| reward model | " in text and " number |" in text and "/count" not in text
