"""Preferences made of a policy's completions, and stages that learn from them."""

import contextlib
import io
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

import grpo.stages.pairs
import grpo.stages.preference
from configs import base
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.data.pairing import Tokens, mismatched, pairs_of, tokens_of
from grpo.pipeline import STAGES
from grpo.stages.pairs import judged, pairs_in
from models.policy import logits
from tests.small_run import (
    C,
    assert_same_run,
    final,
    launch,
    opened,
    rows,
    small,
    small_sft,
    stop_at,
    watched,
    workshop,
)

LOSSES = ("dpo", "simpo", "kto")


def by_checksum(group, stage, random):
    """A pair of a random model's completions, which are never right."""
    texts = {one.text: one for one in group if one.text.strip()}
    order = sorted(texts, key=lambda text: zlib.crc32(text.encode("utf-8", "surrogatepass")))
    return [("wrong", texts[order[0]], texts[order[-1]])] if len(order) > 1 else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.pairs, "pairs_in", by_checksum)
        yield tmp_path_factory.mktemp("runs")


def small_preference(preset: str) -> base.ConfigDict:
    stage = base.preference()
    stage.update(steps=3, batch=4, microbatches=2, max_completion=C + 8)
    stage.loss.preset = preset
    stage.lora.update(rank=2, alpha=4.0)
    stage.optimizer.learning_rate = 1e-2
    return stage


def config_of(*losses: str) -> base.ConfigDict:
    config = small()
    config.data.min_kept = 0.5
    config.stages.sft = small_sft()
    config.stages.pairs = pairs = base.pairs()
    pairs.update(policy="sft", prompts=12, batch=4, group=8, max_new_tokens=C, least=1)
    for name in losses:
        config.stages[name] = small_preference(name)
        config.stages[name].start = "sft"
    config.pipeline = ("sft", "pairs", *losses)
    return config


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config_of(*LOSSES), folder / "straight") == 0
    return folder / "straight"


def pairs_made(workdir):
    return rows(workdir / "preferences", "pairs")


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    workdir, config = folder / "stopped", config_of(*LOSSES)
    for event in ("pairs 1", "reference", "dpo update 2", "simpo update 1", "kto update 1"):
        with watched(stop_at(event)), stopped_within_the_reference(event == "reference"):
            assert launch(config, workdir) == 75
        if event == "reference":
            file = "preferences/dpo.reference.jsonl"
            lines = (straight / file).read_bytes().splitlines(keepends=True)
            assert (workdir / file).read_bytes() == b"".join(lines[:4])  # a batch
            (workdir / file).write_bytes(b"".join(lines[:5]))  # as if killed within the next one
    assert launch(config, workdir) == 0
    assert_same_run(straight, workdir)


@contextlib.contextmanager
def stopped_within_the_reference(is_wanted: bool):
    """Asks the run to stop while the first pairs are read by the reference."""
    found, stage = grpo.stages.preference.reference_logprobs, grpo.stages.preference
    one = stage.completion_logprobs

    def interrupted(setting):
        def first(*words):
            setting.run.stop.reason = "now"
            return one(*words)

        patch.setattr(stage, "completion_logprobs", first)
        return found(setting)

    with pytest.MonkeyPatch.context() as patch:
        if is_wanted:
            patch.setattr(stage, "reference_logprobs", interrupted)
        yield


def test_pairs_are_a_dataset_for_a_later_run(folder, straight):
    """The same updates, from the file as a dataset and the former run's checkpoint."""
    config = config_of("dpo")
    config.pipeline, config.model.path = ("dpo",), str(final(straight, "sft"))
    config.stages.dpo.start = None
    columns = ("id", "question", "chosen", "rejected", "cut_off")
    config.datasets.made = base.dataset(
        source="preferences",
        train=str(straight / "preferences" / "pairs.jsonl"),
        columns={column: column for column in columns},
        min_kept=0.5,
    )
    config.stages.dpo.preferences = "made"
    assert launch(config, folder / "later") == 0
    first, second = (
        [row for row in rows(run, "metrics") if row["stage"] == "dpo"]
        for run in (straight, folder / "later")
    )
    assert first == second and len(first) == 3


def test_what_the_reference_says_is_what_the_policy_said(straight):
    """By a forward pass of one completion at a time, without padding."""
    run, policies = opened(config_of(*LOSSES), straight, io.StringIO())
    policy = policies.end("sft")
    written, made = rows(straight / "preferences", "dpo.reference"), pairs_made(straight)
    pairs = grpo.stages.preference.all_pairs(run, "dpo", policy.own_tokenizer)
    tokens = [tokens for _, tokens in pairs]
    assert len(written) == len(tokens) <= len(made)
    for row, one in list(zip(written, tokens, strict=True))[:3]:
        for side in ("chosen", "rejected"):
            ids = [*one.prompt, *getattr(one, side)]
            logits_TV = np.float64(logits(policy, jnp.array([ids]))[0])
            logprobs = logits_TV - np.log(np.exp(logits_TV).sum(axis=-1, keepdims=True))
            places = range(len(one.prompt), len(ids))
            wanted = sum(logprobs[place - 1, ids[place]] for place in places)
            np.testing.assert_allclose(row[side], wanted, rtol=1e-5)


def test_the_first_update_is_where_the_policy_is_its_reference(straight):
    metrics = {row["stage"]: row for row in reversed(rows(straight, "metrics"))}
    assert metrics["dpo"]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert metrics["dpo"]["preference/ahead"] == pytest.approx(0, abs=1e-5)
    assert metrics["kto"]["loss"] == pytest.approx(0.5, abs=1e-6)
    last = {row["stage"]: row for row in rows(straight, "metrics")}
    assert last["dpo"]["loss"] < metrics["dpo"]["loss"]
    assert last["dpo"]["preference/ahead"] > 0


def test_pairs_on_a_mesh(folder, straight):
    config = config_of(*LOSSES)
    config.mesh.update(fsdp=2, tp=2)
    assert launch(config, folder / "mesh") == 0
    for here, there in zip(
        rows(straight, "metrics"), rows(folder / "mesh", "metrics"), strict=True
    ):
        assert here.keys() == there.keys()
        at_a_tie = {"preference/accuracy"} if abs(here.get("preference/ahead", 1)) < 1e-4 else set()
        for name in here.keys() - {"stage", "step"} - at_a_tie:
            assert here[name] == pytest.approx(there[name], rel=2e-3, abs=1e-5), name


def test_pairs_of_a_prompt_by_hand():
    """Right: 7 short, 7 long. Wrong: 8. Malformed: no tags, cut off, blank."""

    def said(text, tokens, cut_off=False):
        if not isinstance(text, str):
            text = f"<reasoning>3+4=7; so</reasoning><answer>{text}</answer>"
        return judged({"answer": "7"}, text, tokens, cut_off)

    long, short, wrong = said(7, 30), said(7.0, 20), said(8, 10)
    no_tags, cut, blank = said("7", 2), said(7, 5, cut_off=True), said(" ", 1)
    assert [(one.well_formed, one.right) for one in (long, short, wrong, no_tags, cut, blank)] == [
        (True, True), (True, True), (True, False), (False, False), (False, False), (False, False),
    ]  # fmt: skip
    every, group = ("malformed", "wrong", "verbose"), [long, blank, cut, wrong, no_tags, short]

    def found(group, against=every, verbose=1.5):
        stage = {"against": against, "verbose": verbose}
        return pairs_in(group, stage, np.random.RandomState(0))

    assert found(group) == [
        ("malformed", short, cut), ("wrong", short, wrong), ("verbose", short, long),
    ]  # fmt: skip
    assert found(group, verbose=1.6)[-1] == ("wrong", short, wrong)
    assert found(group, against=("verbose",)) == [("verbose", short, long)]
    assert found([no_tags, short]) == [("malformed", short, no_tags)]
    assert found([wrong, no_tags]) == [] == found([short]) == found([cut, wrong])
    ((kind, chosen, worse),) = found(group, against=("deleted",))
    assert (kind, chosen) == ("deleted", long)
    assert worse.text in (long.text.replace("3+4=7; ", ""), long.text.replace("; so", ""))


def test_arrays_by_hand():
    tokens = [Tokens([5], [6, 7], [8], 0.5), Tokens([9, 9], [1], [2, 3, 4], 0.0)]
    pairs = pairs_of(tokens, None, buckets=(2, 4), max_completion=3)
    assert pairs.ids_P2T.tolist() == [
        [[0, 5, 6, 7, 0], [0, 5, 8, 0, 0]],
        [[9, 9, 1, 0, 0], [9, 9, 2, 3, 4]],
    ]
    assert pairs.mask_P2T.tolist() == [
        [[0, 1, 1, 1, 0], [0, 1, 1, 0, 0]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
    ]
    assert pairs.completion_mask_P2C.tolist() == [
        [[1, 1, 0], [1, 0, 0]],
        [[1, 0, 0], [1, 1, 1]],
    ]
    assert pairs.margin_P.tolist() == [0.5, 0.0] and pairs.share_P.tolist() == [0.5, 0.5]
    np.testing.assert_allclose(pairs.weight_PC, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0]], rtol=1e-6)
    assert mismatched(tokens) == [
        Tokens([5], [1], [2, 3, 4], 0.0), Tokens([9, 9], [6, 7], [8], 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "changes", "line"),
    [
        ("pairs", {"batch": 5}, "batch=5: does not divide prompts=12"),
        ("pairs", {"against": ("long",)}, "against=('long',): expected one of malformed, wrong, v"),
        ("pairs", {"policy": "dpo"}, "policy: 'dpo' is neither base nor a training stage before i"),
        ("pairs", {"sampling": {"temperature": 0.0}}, "sampling.temperature=0: the completions"),
        ("dpo", {"preferences": "data"}, "preferences='data': its rows are examples, this stage "),
        ("dpo", {"preferences": "pear"}, "preferences='pear': is neither of datasets nor a stage"),
        ("dpo", {"preferences": "sft"}, "preferences='sft': is neither of datasets nor a stage o"),
        ("dpo", {"loss": {"preset": "grpo"}}, "loss.preset='grpo': expected one of dpo, ipo, simp"),
        ("dpo", {"loss": {"gamma": -1.0}}, "loss.gamma=-1.0: expected a number from 0.0 on"),
        ("dpo", {"loss": {"desirable": 1.0}}, "loss.desirable=1.0 would do nothing under"),
        ("kto", {"batch": 1, "microbatches": 1}, "batch=1: loss.comparison='apart' needs the com"),
        ("kto", {"batch": 3, "microbatches": 4}, "microbatches=4: there are only 3 rows (batch)"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(stage, changes, line):
    config = config_of("dpo", "kto")
    config.stages[stage].update(changes)
    (found,) = problems(config.to_dict(), STAGES)
    assert found.startswith(f"stages.{stage}.{line}")


def test_a_stage_comes_after_its_pairs():
    config = config_of("dpo")
    config.pipeline = ("sft", "dpo", "pairs")
    (found,) = problems(config.to_dict(), STAGES)
    assert found == "stages.dpo.preferences='pairs': the stage must stand before it"


def test_every_pair_is_learnt_once_an_epoch(folder, straight):
    """The order is that of the seed over all pairs, from update to update."""
    seen = []
    real = grpo.stages.preference.following

    def watched_pairs(setting, loop):
        places = real(setting, loop)
        seen.extend(places)
        return places

    config = config_of("simpo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.preference, "following", watched_pairs)
        assert launch(config, folder / "order") == 0
    count = len(rows(straight / "preferences", "dpo.reference"))
    epoch = seen[: min(count, len(seen))]
    assert len(seen) == 12 and len(set(epoch)) == len(epoch)


def test_a_batch_that_was_killed_is_made_again(folder, straight):
    """Its pairs may be there without its metrics."""
    workdir, config = folder / "killed", config_of()
    with watched(stop_at("pairs 0")):
        assert launch(config, workdir) == 75
    made = (workdir / "preferences" / "pairs.jsonl").read_bytes()
    again = made.splitlines(keepends=True)[-1].replace(b'"step":1', b'"step":2')
    (workdir / "preferences" / "pairs.jsonl").write_bytes(made + again)
    assert launch(config, workdir) == 0
    for run in (straight, workdir):
        assert pairs_made(run) == pairs_made(straight)


def test_batches_have_draws_of_their_own(folder):
    """Three times the same prompt: other completions."""
    config = config_of()
    config.data.train_examples = 1
    config.pipeline = ("pairs",)
    config.stages.pairs.update(policy="base", prompts=3, batch=1)
    assert launch(config, folder / "draws") == 0
    made = pairs_made(folder / "draws")
    assert len({(row["chosen"], row["rejected"]) for row in made}) == 3


def test_what_was_cut_off_has_no_end(straight):
    run, policies = opened(config_of(*LOSSES), straight, io.StringIO())
    tokenizer, template = policies.base.own_tokenizer, run.datasets["data"].template
    row = {"question": "2+2?", "chosen": "4", "rejected": "5", "margin": None}
    ends = [
        tokens_of(tokenizer, {**row, "cut_off": cut_off}, template).rejected[-1]
        for cut_off in (False, True)
    ]
    assert ends[0] == tokenizer.end_of_turn_id != ends[1]


def test_margins_that_are_not_there_are_asked_for(folder):
    config = config_of("dpo")
    config.stages.dpo.loss.margin_coef = 1.0
    with pytest.raises(DataError, match="needs a margin of every pair of pairs, "):
        launch(config, folder / "margins")


def test_too_few_pairs_are_an_error(folder, capsys):
    config = config_of()
    config.stages.pairs.update(least=1000)
    with pytest.raises(DataError, match="pairs out of 12 prompts, least=1000 are needed"):
        launch(config, folder / "few")
