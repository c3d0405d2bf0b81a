"""Any update of a run is made again bit by bit, from what the run has left."""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
import sys
import zlib
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest

import grpo.stages.grpo
from configs import base
from grpo.diagnostics.by_reward import REST
from grpo.replays.changes import with_changes
from grpo.replays.forecast import forecast
from grpo.replays.looked_into import Wanted, gradient_with, looked_into
from grpo.replays.place import ReplayError, nearest_checkpoint, place_of, retention
from grpo.replays.report import data_of, lines_of, shown
from grpo.replays.tokens import rows_with, scored
from grpo.reporting.progress import Progress
from grpo.runs.stage_loop import StageLoop
from grpo.tools import replay
from models.policy import logits
from tests.misbehaving import serving
from tests.small_run import C, G, P, launch, rows, small, small_grpo, small_sft, workshop

NOTHING = Wanted({}, forecast=False, by_reward=False)


class Made(NamedTuple):
    """A run, and what each update of its GRPO stage learnt from and left."""

    workdir: pathlib.Path
    batches: list
    states: list


def full() -> base.ConfigDict:
    """All parameters after SFT, four updates per iteration; checkpoints of updates 8 and 12.

    Each update's two groups are a microbatch each, which reads its prompt once.
    """
    config, sft, stage = small(), small_sft(), small_grpo()
    sft.update(evaluate_every=3, checkpoint_every=100)
    stage.update(epochs=2, minibatches=2, microbatches=2, evaluate_every=1, checkpoint_every=2)
    config.stages.sft, config.stages.grpo = sft, stage
    config.pipeline = ("sft", "grpo")
    return config


def lora() -> base.ConfigDict:
    """An adapter, refilled groups, a curriculum, two rewards, one update per iteration."""
    config, stage = small(), small_grpo()
    config.data.levels = (1, 2)
    stage.lora.update(rank=4)
    stage.update(dynamic_sampling="refill", max_rounds=2, evaluate_every=0, checkpoint_every=2)
    stage.rewards.length = base.reward(0.5, 0.0, 1.0, least=1, most=2)
    stage.curriculum.update(order="promoted", window=1, threshold=0.0)
    config.stages.grpo, config.pipeline = stage, ("grpo",)
    return config


def judged(url: str) -> base.ConfigDict:
    """A judge behind a URL that is gone afterwards, one step off-policy."""
    config = small()
    config.judges.grader = base.judge(url=url, name="m", seconds=60.0)
    config.stages.grpo = stage = small_grpo()
    del stage.rewards[next(iter(stage.rewards))]
    stage.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    stage.update(minibatches=2, evaluate_every=0, checkpoint_every=1, staleness=1)
    config.pipeline = ("grpo",)
    return config


def rough(example, completion: str) -> float:
    """A reward of two values: groups without a spread occur."""
    return zlib.crc32(completion.encode("utf-8", "surrogatepass")) % 2 * 1.0


@contextlib.contextmanager
def noted(made: Made):
    """Notes what each update learns from, and the state after it."""
    minibatch, keep_update = grpo.stages.grpo.minibatch, StageLoop.keep_update

    def cut(*words, **named):
        made.batches.append(minibatch(*words, **named))
        return made.batches[-1]

    def kept(self, state, *words, **named):
        if self.stage == "grpo":
            made.states.append(jax.tree.map(np.array, state))
        keep_update(self, state, *words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.stages.grpo, "minibatch", cut)
        patch.setattr(StageLoop, "keep_update", kept)
        yield


def made_by(config: base.ConfigDict, workdir: pathlib.Path) -> Made:
    made = Made(workdir, [], [])
    with noted(made):
        assert launch(config, workdir) == 0
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    with workshop(rough), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = {"full": made_by(full(), folder / "full"), "lora": made_by(lora(), folder / "lora")}
        with serving(lambda prompt, seed: str(1 + zlib.crc32(prompt.encode()) % 9)) as server:
            found["judged"] = made_by(judged(server.url), folder / "judged")
        before = {name: bytes_of(made.workdir) for name, made in found.items()}
        yield found
        # Nothing was written into any of them, whatever the tests did.
        assert {name: bytes_of(made.workdir) for name, made in found.items()} == before


def bytes_of(folder: pathlib.Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def looked(workdir: pathlib.Path, step: int, wanted: Wanted = NOTHING, stage="grpo"):
    return looked_into(
        place_of(workdir, stage, step), wanted, None, Progress(io.StringIO(), every_s=0)
    )


def assert_same_bits(there, here):
    """Same arrays at the same places."""
    pairs = zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True)
    assert jax.tree.structure(there) == jax.tree.structure(here)
    assert all(np.asarray(a).dtype == np.asarray(b).dtype for a, b in pairs)
    pairs = zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True)
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    ("run", "step", "begin", "compared"),
    [
        ("full", 1, 0, ["1 row of metrics.jsonl", "8 rows of rollouts.jsonl"]),
        ("full", 7, 0, ["7 rows of metrics.jsonl", "16 rows of rollouts.jsonl"]),
        ("full", 10, 8, ["2 rows of metrics.jsonl", "8 rows of rollouts.jsonl"]),
        ("full", 12, 8, ["4 rows of metrics.jsonl", "8 rows of rollouts.jsonl"]),
        ("lora", 2, 0, ["2 rows of metrics.jsonl"]),
        ("lora", 3, 2, ["1 row of metrics.jsonl"]),
        ("judged", 2, 0, ["2 rows of metrics.jsonl", "8 rows of rollouts.jsonl"]),
        ("judged", 6, 4, ["2 rows of metrics.jsonl", "8 rows of rollouts.jsonl"]),
    ],
)
def test_any_update_is_made_again_bit_by_bit(runs, run, step, begin, compared):
    made = runs[run]
    assert nearest_checkpoint(place_of(made.workdir, "grpo", step)).step == begin
    found = looked(made.workdir, step)
    assert found.verdict.different == []
    assert found.verdict.compared[: len(compared)] == compared
    assert_same_bits(made.batches[step - 1], found.update.batch)
    assert_same_bits(made.states[step - 1], jax.tree.map(np.asarray, found.update.after))
    if step > 1:
        assert_same_bits(made.states[step - 2], jax.tree.map(np.asarray, found.update.before))
    row = next(r for r in rows(made.workdir, "metrics") if r.get("step") == step and "loss" in r
               and r["stage"] == "grpo")  # fmt: skip
    assert {k: x for k, x in found.update.metrics.items() if "/cached" not in k} == {
        k: x for k, x in row.items() if "/cached" not in k
    }
    has_checkpoint = step in (12, 6, 3) or (run, step) == ("lora", 2)
    assert any("checkpoint" in line for line in found.verdict.compared) == has_checkpoint


def test_rows_are_those_of_the_journal(runs):
    """By text, reward and group, also where groups were drawn in two rounds and some left out."""
    sizes = []
    for run, step in (("full", 11), ("lora", 1), ("lora", 2), ("lora", 3)):
        found = looked(runs[run].workdir, step)
        place, journal = found.place, rows(runs[run].workdir, "rollouts")
        drawn = [row for row in journal if row["iteration"] == place.iteration]
        sizes.append(len(drawn))
        tokenizer = found.update.loop.policy.own_tokenizer
        assert len(found.rows) == P * G // (2 if run == "full" else 1)
        used = [row for row in found.rows if row["ids"]]
        assert used
        for row in used:
            there = [
                {field: one[field] for field in ("id", "completion", "total", "advantage")}
                for one in drawn
            ]
            kept = {field: row[field] for field in ("id", "completion", "total", "advantage")}
            assert kept in there
            stops = tokenizer.stop_ids
            ids = row["ids"][:-1] if row["ids"][-1] in stops else row["ids"]
            assert tokenizer.decode(ids) == row["completion"]
            assert len(row["ids"]) == len(row["tokens"]) == len(row["change"])
    assert 2 * P * G in sizes  # or it shows little


def test_tokens_are_those_that_count(runs):
    """Of a completion that ends early, those up to its end; of a row that is left out, none."""
    update = looked(runs["lora"].workdir, 3).update
    mask_BC = np.zeros_like(update.batch.completion_mask_BC)
    mask_BC[0, :2] = 1
    run = dataclasses.replace(update.setting.run, workdir=runs["lora"].workdir)
    cut = update._replace(
        batch=update.batch._replace(completion_mask_BC=mask_BC),
        setting=update.setting._replace(run=run),
    )
    place_BC = np.broadcast_to(np.arange(mask_BC.shape[1]), mask_BC.shape)
    first, *others = rows_with(cut, {"place": place_BC})
    ids = np.asarray(update.batch.ids_BT)[0, -mask_BC.shape[1] :]
    assert first["ids"] == ids[:2].tolist() and first["place"] == [0.0, 1.0]
    assert others and all(row["ids"] == row["tokens"] == row["place"] == [] for row in others)


def test_log_probs_of_tokens_against_logits(runs):
    found = looked(runs["lora"].workdir, 3)
    update = found.update
    ids_BT, mask_BT = np.asarray(update.batch.ids_BT), np.asarray(update.batch.mask_BT)
    for trainable, add in ((update.before.trainable, False), (update.after.trainable, True)):
        policy = dataclasses.replace(update.loop.policy, adapter=trainable)
        z = np.asarray(logits(policy, ids_BT, mask_BT), float)[:, -C - 1 : -1]
        z -= z.max(-1, keepdims=True)
        told = z - np.log(np.exp(z).sum(-1, keepdims=True))
        wanted_BC = np.take_along_axis(told, ids_BT[:, -C:, None], -1)[..., 0]
        for row, wanted in zip(found.rows, wanted_BC, strict=True):
            got = np.array(row["before"]) + (np.array(row["change"]) if add else 0)
            np.testing.assert_allclose(got, wanted[: len(got)], atol=2e-5)


def test_what_differs_is_said(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs["full"].workdir, workdir)
    for journal, field in (("metrics", "kl"), ("rollouts", "advantage")):
        file, told = workdir / f"{journal}.jsonl", []
        for row in rows(workdir, journal):
            if row["stage"] == "grpo" and row["iteration"] == 2 and field in row:
                row[field] = -7.0
            told.append(json.dumps(row, separators=(",", ":")))
        file.write_text("\n".join(told) + "\n")
    row = rows(workdir, "environment")[-1]
    (workdir / "environment.jsonl").write_text(json.dumps({**row, "cores": 77}) + "\n")
    verdict = looked(workdir, 9).verdict
    kl = next(row for row in rows(runs["full"].workdir, "metrics") if row["step"] == 9)["kl"]
    assert verdict.different[0] == f"metrics.jsonl: update 9, row 1: kl was -7.0, is {kl}"
    assert verdict.different[1].startswith("rollouts.jsonl: update 8, row 1: advantage was -7.0")
    assert verdict.different[-1] == "rollouts.jsonl: and 3 more rows"
    assert [reason.partition(" -> ")[0] for reason in verdict.reasons] == ["cores 77"]
    assert looked(workdir, 8).verdict.different == []


def test_a_checkpoint_of_other_bits_is_told_apart(runs, tmp_path):
    """The state after the update is compared, not the journals alone."""
    workdir = tmp_path / "run"
    shutil.copytree(runs["full"].workdir, workdir)
    checkpoints = workdir / "checkpoints" / "grpo"
    shutil.rmtree(checkpoints / "00000012")
    shutil.copytree(checkpoints / "00000008", checkpoints / "00000012")
    about = json.loads((checkpoints / "00000012" / "extra.json").read_text())
    (checkpoints / "00000012" / "extra.json").write_text(json.dumps({**about, "step": 12}))
    manifest = json.loads((checkpoints / "00000012" / "manifest.json").read_text())
    data = (checkpoints / "00000012" / "extra.json").read_bytes()
    manifest["extra.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoints / "00000012" / "manifest.json").write_text(json.dumps(manifest))
    different = looked(workdir, 12).verdict.different
    assert "checkpoint 12: trainable/final_norm/scale" in different
    assert all(line.startswith("checkpoint 12: ") for line in different)


def test_from_which_checkpoint(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs["full"].workdir, workdir)

    def told(step):
        place = place_of(workdir, None, step)
        found = nearest_checkpoint(place)
        return found.step, retention(place, found)

    assert told(1) == (0, "from the beginning of the stage: 1 update is made again")
    assert told(8) == (
        0,
        "from the beginning of the stage: 8 updates are made again; checkpoints left: 8, 12; more "
        "are kept by checkpoint.keep_last, and made by the stage's checkpoint_every",
    )
    assert told(12) == (8, "from the checkpoint of update 8: 4 updates are made again")
    (workdir / "checkpoints/grpo/00000008/extra.json").write_text("{}")
    place = place_of(workdir, "grpo", 12)
    assert nearest_checkpoint(place).step == 0
    assert "extra.json" in nearest_checkpoint(place).passed[0]
    shutil.rmtree(workdir / "checkpoints" / "sft")
    with pytest.raises(ReplayError, match="the end of sft, from which others begin, is gone"):
        looked(workdir, 12)


def test_a_checkpoint_amid_the_iteration_is_not_begun_at(runs, tmp_path):
    """Its completions would be read, not sampled: the one before it is taken."""
    folder = runs["full"].workdir / "checkpoints" / "grpo"
    place = place_of(runs["full"].workdir, "grpo", 12)._replace(workdir=tmp_path)
    for step in (4, 8, 9, 10):
        shutil.copytree(folder / "00000008", tmp_path / "checkpoints" / "grpo" / f"{step:08d}")
    assert nearest_checkpoint(place).step == 8
    assert nearest_checkpoint(place).later == [9, 10]
    assert nearest_checkpoint(place).passed == []  # the later ones are not even looked at


@pytest.mark.parametrize(
    ("run", "stage", "step", "said"),
    [
        ("full", None, 13, "--step=13: grpo of .* has made 12 updates"),
        ("full", None, 0, "--step=0: grpo of .* has made 12 updates"),
        ("full", "grp", 1, "--stage=grp: stages of kind sft, .*: sft, grpo; did you mean grpo"),
        ("nothing", None, 1, "is no directory of a run: it has no config.json"),
    ],
)
def test_what_cannot_be_made_again(runs, run, stage, step, said):
    with pytest.raises(ReplayError, match=said):
        place_of(runs["full"].workdir.parent / run, stage, step)


def test_a_config_of_another_version_is_refused(runs, tmp_path):
    config = json.loads((runs["lora"].workdir / "config.json").read_text())
    del config["stages"]["grpo"]["staleness"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReplayError, match=r"another version of this code: stages\.grpo\.staleness"):
        place_of(tmp_path, None, 1)


def test_a_recording_that_is_gone(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs["judged"].workdir, workdir)
    (workdir / "judges" / "grader.jsonl").unlink()
    with pytest.raises(ValueError, match="a replay needs a recording of an earlier run"):
        looked(workdir, 1)


def test_an_update_under_other_fields_is_that_of_a_run_with_them(runs, tmp_path):
    """At the first update, where both runs begin with the same state."""
    fields = {"loss.kl_coef": 0.5, "loss.scale": "none", "optimizer.learning_rate": 0.005}
    other = lora()
    for path, value in fields.items():
        other.stages.grpo.update_from_flattened_dict({path: value})
    other.stages.grpo.iterations = 3
    made = made_by(other, tmp_path / "other")
    found = looked(runs["lora"].workdir, 1, Wanted(fields, forecast=False, by_reward=False))
    assert found.other is not None and found.verdict.different == []
    assert found.other.update.metrics == next(
        row for row in rows(made.workdir, "metrics") if "loss" in row
    )
    assert_same_bits(made.batches[0], found.other.update.batch)
    assert_same_bits(made.states[0], jax.tree.map(np.asarray, found.other.update.after))
    assert found.other.update.metrics != found.update.metrics
    norms = [one.metrics["grad_norm"] for one in (found.update, found.other.update)]
    of_all = found.other.parts["all"]
    assert [of_all["norm"], of_all["changed_norm"]] == pytest.approx(norms, rel=1e-4)
    assert norms[0] != pytest.approx(norms[1], rel=1e-2)


def test_an_update_amid_an_iteration_under_another_rate(runs):
    """The same gradient; twice the rate takes the parameters twice as far from where it began."""
    rate = full().stages.grpo.optimizer.learning_rate
    fields = {"optimizer.learning_rate": 2 * rate}
    found = looked(runs["full"].workdir, 10, Wanted(fields, forecast=False, by_reward=False))
    other = found.other
    assert other is not None
    assert_same_bits(found.update.before, other.update.before)
    assert_same_bits(found.update.batch, other.update.batch)
    assert other.update.metrics["grad_norm"] == found.update.metrics["grad_norm"]
    norms = [one.metrics["update_norm"] for one in (found.update, other.update)]
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)
    assert {part: round(of["cosine"], 4) for part, of in other.parts.items()} == dict.fromkeys(
        other.parts, 1.0
    )
    assert {"all", "layer 0", "layer 1", "layers/attention/q/w"} <= other.parts.keys()
    assert other.update_cosine == pytest.approx(1.0, abs=1e-5)
    squares = {part: of["norm"] ** 2 for part, of in other.parts.items()}
    layers = sum(x for part, x in squares.items() if part.startswith("layer "))
    paths = sum(x for part, x in squares.items() if part.startswith("layers/"))
    assert layers == pytest.approx(paths, rel=1e-4)
    assert squares["all"] == pytest.approx(found.update.metrics["grad_norm"] ** 2, rel=1e-4)


def test_the_gradient_by_reward_adds_up(runs):
    for run, step, names in (
        ("lora", 2, {"tag_format", "length", REST}),
        ("full", 5, {"tag_format", REST}),
    ):
        found = looked(runs[run].workdir, step, Wanted({}, forecast=False, by_reward=True))
        parts = found.parts
        assert parts is not None and parts.norms.keys() == names
        assert parts.residual < 1e-5
        together = sum(parts.advantages.values())
        np.testing.assert_allclose(together, found.update.batch.advantage_B, atol=1e-5)
        whole = gradient_with(found.update)
        own = np.sqrt(sum(float((np.asarray(x) ** 2).sum()) for x in jax.tree.leaves(whole)))
        # g · g = Σ_f g_f · g, by norms and cosines alone
        dots = [parts.norms[f] * parts.to_whole[f] for f in names]
        assert sum(dots) == pytest.approx(own, rel=1e-3)


def test_the_forecast_against_differences(runs):
    """The derivative along the update, of small steps there and back."""
    for run, step in (("lora", 3), ("full", 2)):
        update = looked(runs[run].workdir, step).update
        mask_BC = np.array(update.batch.completion_mask_BC)
        mask_BC[0, 1:] = 0  # a completion that ends early
        update = update._replace(batch=update.batch._replace(completion_mask_BC=mask_BC))
        before, after = update.before.trainable, update.after.trainable
        predicted_BC, fits = forecast(update, (0.01, 1.0))
        c = 0.004
        ends = [
            scored(update, jax.tree.map(lambda x, y, c=c: x + c * (y - x), before, after))
            for c in (c, -c)
        ]
        mask_BC = np.asarray(update.batch.completion_mask_BC, bool)
        wanted = ((ends[0] - ends[1]) / (2 * c))[mask_BC]
        size = np.sqrt(np.mean(wanted**2))
        assert size > 1e-3
        assert np.abs(predicted_BC[mask_BC] - wanted).max() < 0.02 * size + 5e-5
        assert fits[0].scale == 0.01 and fits[1].learning_rate == pytest.approx(
            update.metrics["learning_rate"]
        )
        realised = (scored(update, after) - scored(update, before))[mask_BC]
        assert fits[1].realised == pytest.approx(np.sqrt(np.mean(realised**2)), rel=1e-5)
        wanted = np.corrcoef(predicted_BC[mask_BC], realised)[0, 1]
        assert fits[1].correlation == pytest.approx(wanted, abs=1e-6)


def test_the_command(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(replay, "keep_programs", lambda: None)
    told = SimpleNamespace()

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["replay", *map(str, words)])
        try:
            told.code = replay.main()
        except SystemExit as error:
            told.code = error.code
        told.out, told.err = capsys.readouterr()
        return told

    run, file = runs["lora"].workdir, tmp_path / "update.json"
    words = ("--set", "loss.kl_coef=0", "--forecast", "--by_reward", f"--write={file}")
    assert command(run, "--step=3", *words).code == 0
    assert told.out.startswith("bit-equal: 1 row of metrics.jsonl, ")
    assert "with loss.kl_coef=0:" in told.out and "| cosine to the run's gradient" in told.out
    assert "conflict" in told.out and "to first order" in told.out
    assert "grpo, update 3, from the checkpoint of update 2" in told.err
    data = json.loads(file.read_text())
    assert data["step"] == 3 and data["verdict"]["different"] == []
    assert data["changed"]["fields"] == {"loss.kl_coef": 0}
    assert [one["scale"] for one in data["forecast"]] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    assert data["by_reward"]["norms"].keys() == {"tag_format", "length", REST}
    columns = ("ids", "tokens", "before", "change", "changed_change", "predicted")
    for row in data["rows"]:
        assert {len(row[name]) for name in columns} == {len(row["ids"])}
        assert sum(row["advantages"].values()) == pytest.approx(row["advantage"], abs=1e-5)
    assert command(run, "--step=99").code == 2
    assert told.err.splitlines()[-1].startswith("error: --step=99: ")
    assert command(run, "--step=1", "--set", "loss.kl_cof=0").code == 2
    assert (
        told.err == "error: --set=loss.kl_cof: unknown field of grpo; did you mean loss.kl_coef?\n"
    )


def test_the_lines_of_an_update(runs):
    """Without any question there are a verdict and the tokens that moved; the file has all rows."""
    found = looked(runs["full"].workdir, 3)
    lines = lines_of(found)
    assert lines[0].startswith("bit-equal: 3 rows of metrics.jsonl")
    data = data_of(found)
    assert data["changed"] is data["forecast"] is data["by_reward"] is None
    assert (data["iteration"], data["update"]) == (0, 3)
    assert len(data["rows"]) == P * G // 2
    most = max((x for row in data["rows"] for x in row["change"]), key=abs)
    table = "\n".join(lines).split("\n")
    first = next(line for line in table if line.startswith("| `"))
    assert first.split("|")[-2].strip() == shown(most)


def test_fields_that_may_change():
    config = full().to_dict()
    changed = with_changes(config, "grpo", {"loss.surrogate": "reinforce"})
    assert changed["stages"]["grpo"]["loss"]["clip_low"] is None  # the preset's own, now idle
    assert config["stages"]["grpo"]["loss"]["surrogate"] is None
