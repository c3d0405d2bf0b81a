"""Updates of supervised training and of preferences are made again as those of GRPO are."""

import contextlib
import io
import json
import pathlib
import shutil
import sys
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import grpo.stages.pairs
from configs import base
from grpo.data.templates import prompt_ids, target_ids, target_text
from grpo.replays.changes import changes_of, with_changes
from grpo.replays.forecast import forecast
from grpo.replays.looked_into import Wanted
from grpo.replays.place import ReplayError, nearest_checkpoint, place_of
from grpo.replays.tokens import scored
from grpo.runs.stage_loop import StageLoop
from grpo.tools import replay
from models.policy import logits
from tests.small_run import C, launch, opened, rows, small, small_sft, workshop
from tests.test_preference_stage import by_checksum, small_preference
from tests.test_replay import assert_same_bits, bytes_of, looked

STAGES = ("sft", "packed", "dpo", "kto")
REFERENCE = "preferences/{}.reference.jsonl"


def config_of(**changes: Any) -> base.ConfigDict:
    """All parameters and an adapter, of both kinds; five updates each, checkpoints of 3 and 5.

    `changes` are those of fields of the stage dpo.
    """
    config = small()
    config.data.min_kept = 0.5
    config.stages.sft, config.stages.packed = small_sft(), small_sft()
    config.stages.packed.update(packing=160)
    config.stages.packed.lora.update(rank=2, alpha=4.0)
    config.stages.pairs = pairs = base.pairs()
    pairs.update(policy="sft", prompts=12, batch=4, group=8, max_new_tokens=C, least=1)
    config.stages.dpo, config.stages.kto = small_preference("dpo"), small_preference("kto")
    config.stages.dpo.lora.rank = None
    config.stages.dpo.update_from_flattened_dict(changes)
    for name in ("dpo", "kto"):
        config.stages[name].start = "sft"
    for name in STAGES:
        config.stages[name].update(steps=5, checkpoint_every=3)
    config.pipeline = ("sft", "packed", "pairs", "dpo", "kto")
    return config


class Made(dict):
    """(stage, step) -> the arrays that an update of a run learnt from, and the state it left."""

    def __init__(self, config: base.ConfigDict, workdir: pathlib.Path):
        self.workdir, keep_update = workdir, StageLoop.keep_update

        def kept(loop, state, metrics, batch):
            self[loop.stage, loop.step + 1] = batch, jax.tree.map(np.array, state)
            keep_update(loop, state, metrics, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StageLoop, "keep_update", kept)
            assert launch(config, workdir) == 0

    def row(self, stage: str, step: int) -> dict:
        """The metrics of an update."""
        return next(
            row
            for row in rows(self.workdir, "metrics")
            if (row["stage"], row["step"]) == (stage, step) and "loss" in row
        )


@contextlib.contextmanager
def pairs_of_anything():
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.pairs, "pairs_in", by_checksum)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pairs_of_anything():
        found = Made(config_of(), tmp_path_factory.mktemp("replay") / "run")
        before = bytes_of(found.workdir)
        yield found
        assert bytes_of(found.workdir) == before  # whatever the tests did


def copied(made: Made, folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(made.workdir, folder / "run"))


def rewritten(workdir: pathlib.Path, file: str, change) -> None:
    """Changes the rows of a journal."""
    told = [json.dumps(change(row), separators=(",", ":")) for row in rows(workdir, file)]
    (workdir / f"{file}.jsonl").write_text("\n".join(told) + "\n")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("step", "begin"), [(1, 0), (3, 0), (4, 3), (5, 3)])
def test_any_update_is_made_again_bit_by_bit(made, stage, step, begin):
    assert nearest_checkpoint(place_of(made.workdir, stage, step)).step == begin
    found = looked(made.workdir, step, stage=stage)
    update, (batch, after) = found.update, made[stage, step]
    assert found.verdict.different == []
    wanted = [f"{step - begin} row{'s' * (step - begin > 1)} of metrics.jsonl"]
    if stage in ("dpo", "kto") and not begin:
        pairs = len(rows(made.workdir, REFERENCE.format(stage).removesuffix(".jsonl")))
        wanted.append(f"{pairs} rows of {REFERENCE.format(stage)}")
    if step in (3, 5):
        wanted.append(f"{len(jax.tree.leaves(after))} arrays of checkpoint {step}")
    assert found.verdict.compared == wanted
    got = {field: x for field, x in update.batch._asdict().items() if x is not None}
    assert_same_bits(dict(batch), got)
    assert_same_bits(after, jax.tree.map(np.asarray, update.after))
    if step > 1:
        assert_same_bits(made[stage, step - 1][1], jax.tree.map(np.asarray, update.before))
    assert update.metrics == made.row(stage, step)


def test_updates_differ(made):
    """Or it would show little that they are made again."""
    for stage in STAGES:
        for step in range(2, 6):
            (before, _), (batch, _) = made[stage, step - 1], made[stage, step]
            name = next(field for field in batch if field.startswith("ids"))
            assert not np.array_equal(before[name], batch[name])
    assert made["kto", 2][0]["moved_P"].max() >= 0


def test_examples_of_an_update_are_told(made):
    """Those that it took, of which a packed row has several, each with its own tokens."""
    run, policies = opened(config_of(), made.workdir, io.StringIO())
    data, tokenizer = run.datasets["data"], policies.base.own_tokenizer
    by_id = {example["id"]: example for example in data.train}
    for stage, step in (("sft", 2), ("packed", 4)):
        found = looked(made.workdir, step, stage=stage)
        for row in found.rows:
            example = by_id[row["id"]]
            assert row["ids"] == target_ids(tokenizer, example, data.template)
            assert row["completion"] == target_text(example, data.template)
            assert example["question"] in row["prompt"]
            assert len(row["tokens"]) == len(row["change"]) == len(row["ids"])
        count = np.asarray(made[stage, step][0]["weight_BC"] > 0).sum()
        assert sum(len(row["ids"]) for row in found.rows) == count
        assert found.update.tokens.completion_mask_BC.sum() == count
        assert (len(found.rows) > 2) == (stage == "packed")
    taken = [looked(made.workdir, step, stage="sft").rows for step in (1, 2)]
    assert not {row["id"] for row in taken[0]} & {row["id"] for row in taken[1]}


def test_pairs_of_an_update_are_told(made):
    tokenizer = opened(config_of(), made.workdir, io.StringIO())[1].base.own_tokenizer
    pairs = {row["id"]: row for row in rows(made.workdir, "preferences/pairs")}
    found = looked(made.workdir, 4, stage="kto")
    ids_P2T = made["kto", 4][0]["ids_P2T"]
    assert [row["side"] for row in found.rows] == ["chosen", "rejected"] * len(ids_P2T)
    for place, row in enumerate(found.rows):
        pair = pairs[row["id"]]
        assert row["completion"] == pair[row["side"]] and pair["question"] in row["prompt"]
        ended = row["side"] == "chosen" or not pair["cut_off"]
        assert row["ids"] == [
            *tokenizer.encode(row["completion"], bos=False),
            *[tokenizer.end_of_turn_id] * ended,
        ]
        there = ids_P2T.reshape(-1, ids_P2T.shape[2])[place, -C - 8 :]
        assert there[: len(row["ids"])].tolist() == row["ids"]


@pytest.mark.parametrize(("stage", "step"), [("packed", 4), ("dpo", 5)])
def test_log_probs_of_tokens_against_logits(made, stage, step):
    """Of each prompt and completion alone, without padding or neighbours in a row."""
    run, policies = opened(config_of(), made.workdir, io.StringIO())
    found = looked(made.workdir, step, stage=stage)
    update, policy, template = found.update, policies.start(stage), run.datasets["data"].template
    questions = {row["id"]: row for row in run.datasets["data"].train}
    questions |= {row["id"]: row for row in rows(made.workdir, "preferences/pairs")}
    moved = 0.0
    for row in found.rows[:3]:
        ids = prompt_ids(policy.own_tokenizer, questions[row["id"]], template)
        got = [np.array(row["before"]), np.array(row["before"]) + np.array(row["change"])]
        for state, of in zip((update.before, update.after), got, strict=True):
            z = logits(policy.with_trained(state.trainable), np.array([[*ids, *row["ids"]]]))
            z = np.asarray(z, float)[0, len(ids) - 1 : -1]
            z -= z.max(-1, keepdims=True)
            told = z - np.log(np.exp(z).sum(-1, keepdims=True))
            wanted = told[np.arange(len(row["ids"])), row["ids"]]
            np.testing.assert_allclose(of, wanted, atol=5e-5)
        moved = max(moved, np.abs(row["change"]).max())
    assert moved > 1e-3


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_changed_journal_is_noticed(made, tmp_path, stage):
    workdir = copied(made, tmp_path)
    rewritten(
        workdir,
        "metrics",
        lambda row: {**row, "loss": -7.0} if (row["stage"], row["step"]) == (stage, 4) else row,
    )
    (different,) = looked(workdir, 5, stage=stage).verdict.different
    loss = made.row(stage, 4)["loss"]
    assert different == f"metrics.jsonl: update 4, row 1: loss was -7.0, is {loss}"
    assert looked(workdir, 3, stage=stage).verdict.different == []


def test_what_the_reference_said_is_compared_where_the_stage_begins(made, tmp_path):
    """From a checkpoint it is read, and another value shows in the updates that learn from it."""
    workdir, file = copied(made, tmp_path), REFERENCE.format("dpo")
    stem = file.removesuffix(".jsonl")
    chosen = {row["pair"]: row["chosen"] for row in rows(made.workdir, stem)}
    rewritten(workdir, stem, lambda row: {**row, "chosen": row["chosen"] + (row["pair"] == 0)})
    different = looked(workdir, 1, stage="dpo").verdict.different
    assert different == [f"{file}: row 1: chosen was {chosen[0] + 1}, is {chosen[0]}"]
    rewritten(workdir, stem, lambda row: {**row, "chosen": row["chosen"] - 1})
    verdict = looked(workdir, 4, stage="dpo").verdict
    assert verdict.compared == ["1 row of metrics.jsonl"]
    assert verdict.different[0].startswith("metrics.jsonl: update 4, row 1: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"loss.beta": 0.7, "optimizer.learning_rate": 0.005},
        {"loss.preset": "kto", "reference": "base"},
        {"loss.preset": "simpo", "microbatches": 1},
    ],
)
def test_an_update_under_other_fields_is_that_of_a_run_with_them(made, tmp_path, fields):
    """At the first update, where both runs begin with the same state."""
    config = config_of(**fields)
    config.pipeline = ("sft", "pairs", "dpo")
    other = Made(config, tmp_path / "other")
    found = looked(made.workdir, 1, Wanted(fields, False, False), stage="dpo")
    assert found.other is not None and found.verdict.different == []
    batch, after = other["dpo", 1]
    update = found.other.update
    assert update.metrics == other.row("dpo", 1) != found.update.metrics
    got = {field: x for field, x in update.batch._asdict().items() if x is not None}
    assert_same_bits(dict(batch), got)
    assert_same_bits(after, jax.tree.map(np.asarray, update.after))
    norms = [one.metrics["grad_norm"] for one in (found.update, update)]
    of_all = found.other.parts["all"]
    assert [of_all["norm"], of_all["changed_norm"]] == pytest.approx(norms, rel=1e-4)
    first = found.rows[0]
    assert first["changed_change"] != first["change"]


@pytest.mark.parametrize("stage", ["sft", "packed", "kto"])
def test_twice_the_rate_goes_twice_as_far(made, stage):
    """By the same gradient, from where the update began."""
    rate = config_of().stages[stage].optimizer.learning_rate
    fields = {"optimizer.learning_rate": 2 * rate, "microbatches": 1}
    found = looked(made.workdir, 4, Wanted(fields, False, False), stage=stage)
    other = found.other
    assert other is not None
    assert_same_bits(found.update.before, other.update.before)
    norms = [one.metrics["update_norm"] for one in (found.update, other.update)]
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-3)
    assert other.parts["all"]["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert other.update_cosine == pytest.approx(1.0, abs=1e-4)
    moved = [np.abs(row[name]).max() for row in found.rows for name in ("change", "changed_change")]
    assert sum(moved[1::2]) > sum(moved[::2])


@pytest.mark.parametrize(("stage", "step"), [("packed", 3), ("dpo", 4)])
def test_the_forecast_against_differences(made, stage, step):
    """The derivative along the update, of small steps there and back."""
    update = looked(made.workdir, step, stage=stage).update
    before, after = update.before.trainable, update.after.trainable
    predicted_BC, fits = forecast(update, (1.0,))
    c = 0.004
    ends = [
        scored(update, jax.tree.map(lambda x, y, c=c: x + c * (y - x), before, after))
        for c in (c, -c)
    ]
    mask_BC = np.asarray(update.tokens.completion_mask_BC, bool)
    wanted = ((ends[0] - ends[1]) / (2 * c))[mask_BC]
    size = np.sqrt(np.mean(wanted**2))
    assert size > 1e-3
    assert np.abs(predicted_BC[mask_BC] - wanted).max() < 0.02 * size + 5e-5
    assert np.isfinite(fits[0].correlation) and fits[0].realised > 1e-3


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        ("sft", ["batch=1"], "--set=batch: would change the batch, and not the update alone; what"),
        ("sft", ["packing=200"], "--set=packing: would change the batch"),
        ("sft", ["loss.beta=1"], "--set=loss.beta: unknown field of sft"),
        ("sft", ["microbatches=3"], "stages.sft.microbatches=3: there are only 2 rows (batch)"),
        ("dpo", ["max_completion=3"], "--set=max_completion: would change the batch"),
        ("dpo", ["loss.desirable=2"], "stages.dpo.loss.desirable=2 would do nothing under"),
        ("dpo", ["loss.preset=grpo"], "stages.dpo.loss.preset='grpo': expected one of dpo, ipo"),
        ("dpo", ["reference=sft"], "stages.dpo.reference='sft': expected one of start, base"),
    ],
)
def test_a_change_that_makes_no_sense_is_one_line(stage, words, said):
    with pytest.raises(ReplayError) as error:
        with_changes(config_of().to_dict(), stage, changes_of(words))
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pipeline", "stage", "found"),
    [
        (("sft", "pairs"), None, "sft"),
        (("sft", "pairs"), "pairs", "--stage=pairs of kind pairs: stages of kind sft, preference"),
        (("sft", "pairs", "dpo"), None, "--stage is missing: name one of sft, dpo"),
        (("sft", "pairs", "dpo"), "dpo", "dpo"),
    ],
)
def test_which_stage_is_meant(made, tmp_path, pipeline, stage, found):
    shutil.copy(made.workdir / "metrics.jsonl", tmp_path)
    config = json.loads((made.workdir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pipeline": pipeline}))
    try:
        assert place_of(tmp_path, stage, 2).stage == found
    except ReplayError as error:
        assert str(error).startswith(found)


def test_the_command(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(replay, "keep_programs", lambda: None)
    told = SimpleNamespace()

    def command(run, *words):
        monkeypatch.setattr(sys, "argv", ["replay", str(run), *map(str, words)])
        try:
            told.code = replay.main()
        except SystemExit as error:
            told.code = error.code
        told.out, told.err = capsys.readouterr()
        return told

    file = tmp_path / "update.json"
    words = ("--set", "loss.beta=0.2", "--forecast", f"--write={file}")
    assert command(made.workdir, "--stage=dpo", "--step=4", *words).code == 0
    assert told.out.startswith("bit-equal: 1 row of metrics.jsonl\n")
    assert "with loss.beta=0.2:" in told.out and "| preference/ahead " in told.out
    assert "to first order" in told.out and " side |" in told.out and " rejected |" in told.out
    assert "dpo, update 4, from the checkpoint of update 3" in told.err
    data = json.loads(file.read_text())
    assert (data["stage"], data["iteration"], data["update"]) == ("dpo", 3, 1)
    assert data["by_reward"] is None and len(data["forecast"]) == 7
    columns = ("ids", "tokens", "before", "change", "changed_change", "predicted")
    for row in data["rows"]:
        assert {len(row[name]) for name in columns} == {len(row["ids"])}
        assert {"id", "side", "prompt", "completion"} < row.keys()
    assert command(made.workdir, "--stage=packed", "--step=5").code == 0
    assert "| token " in told.out and "advantage" not in told.out
    for stage in STAGES:
        assert command(made.workdir, f"--stage={stage}", "--step=1", "--by_reward").code == 2
        said = f"error: --by_reward: {stage} learns from no rewards: leave it out\n"
        assert told.err == said
    workdir = copied(made, tmp_path)
    (workdir / "preferences" / "pairs.jsonl").unlink()
    assert command(workdir, "--stage=kto", "--step=4").code == 2
    assert "preferences/pairs.jsonl" in told.err.splitlines()[-1]
    shutil.rmtree(workdir / "checkpoints" / "packed")
    assert command(workdir, "--stage=dpo", "--step=4").code == 2
    assert "the end of packed, from which others begin, is gone" in told.err.splitlines()[-1]
