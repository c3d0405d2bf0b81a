"""A run that is stopped anywhere, or killed, goes on bit by bit."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

import grpo.stages.grpo
from grpo.pipeline import locked
from grpo.storage.snapshot import read_about
from models.tokenizer import Tokenizer
from tests.small_run import (
    G,
    P,
    about,
    arrays,
    assert_same_run,
    final,
    launch,
    newest,
    rows,
    small,
    small_evaluate,
    small_grpo,
    small_sft,
    stop_at,
    watched,
)

ROOT = pathlib.Path(__file__).parent.parent
UPDATES = 4  # of an iteration: two epochs in two minibatches
# Where the run is stopped, one after the other in one directory, and the checkpoint this leaves.
# "evaluate" counts batches of the launch: every evaluation has two.
STOPS = [
    ("the middle of SFT", "sft update 2", 1, "sft", 2),
    ("the evaluation at the end of SFT", "evaluate 0", 1, "sft", 3),
    ("the evaluation before GRPO", "evaluate 0", 3, "grpo", 0),
    ("between sampling and updates", "train 0", 1, "grpo", 0),
    ("the end of the rewards", "round", 1, "grpo", 0),
    ("the middle of the first epoch", "grpo update 1", 1, "grpo", 1),
    ("the middle of the second epoch", "grpo update 3", 1, "grpo", 3),
    ("the end of an iteration", "grpo update 4", 1, "grpo", 4),
    ("a kill in the third iteration", "kill", 1, "grpo", 8),
    ("the evaluation stage, at its second policy", "evaluate 0", 5, "grpo", 12),
]


class Killed(BaseException):
    """As if the power went."""


def config():
    """Supervised training, GRPO with four updates per iteration, and an evaluation."""
    run, sft, grpo, evaluate = small(), small_sft(), small_grpo(), small_evaluate()
    sft.update(evaluate_every=3, checkpoint_every=100)
    grpo.update(epochs=2, minibatches=2, evaluate_every=1, checkpoint_every=2)
    run.stages.sft, run.stages.grpo, run.stages.evaluate = sft, grpo, evaluate
    run.pipeline = ("sft", "grpo", "evaluate")
    return run


def kill(run, event):
    if event == "grpo update 10":
        raise Killed(event)


@contextlib.contextmanager
def stopping_after_rewards(*, is_on: bool):
    """Asks a run to stop when a round is scored, and nothing was learnt."""
    play_round = grpo.stages.grpo.play_round

    def played(setting, *words):
        found = play_round(setting, *words)
        setting.run.stop.reason = "stopped after round"
        return found

    with pytest.MonkeyPatch.context() as patch:
        if is_on:
            patch.setattr(grpo.stages.grpo, "play_round", played)
        yield


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing interrupts."""
    assert launch(config(), folder / "straight") == 0
    return folder / "straight"


@pytest.fixture(scope="module")
def stopped(folder):
    """The same run stopped everywhere, and what each launch left."""
    workdir, got = folder / "stopped", []
    for _, event, nth, stage, _ in STOPS:
        see = kill if event == "kill" else stop_at(event, nth)
        with watched(see) as events, stopping_after_rewards(is_on=event == "round"):
            try:
                code = launch(config(), workdir)
            except Killed:
                code = None
        failed = workdir / "FAILED"
        reason = failed.read_text().split("\n")[0] if failed.exists() else None
        got.append({"code": code, "newest": newest(workdir, stage), "FAILED": reason})
        got[-1]["about"] = about(workdir, stage, got[-1]["newest"][0])
        got[-1]["events"] = events
    assert launch(config(), workdir) == 0
    return workdir, dict(zip([stop[0] for stop in STOPS], got, strict=True))


def test_a_run_that_is_stopped_everywhere_ends_bit_by_bit_like_one_that_is_not(straight, stopped):
    assert_same_run(straight, stopped[0])
    assert len(rows(straight, "metrics")) == 3 + 2 + 3 * UPDATES + 4 + 2
    assert len(rows(straight, "rollouts")) == 3 * P * G
    times = [[{**row, "seconds": 0} for row in rows(w, "timing")] for w in (straight, stopped[0])]
    assert times[0] == times[1]


@pytest.mark.parametrize(("what", "event", "nth", "stage", "step"), STOPS)
def test_a_stop_leaves_a_checkpoint_of_that_moment(stopped, what, event, nth, stage, step):
    got = stopped[1][what]
    assert got["newest"][0] == step
    is_killed = event == "kill"
    assert got["code"] == (None if is_killed else 75)
    assert got["FAILED"] == ("Killed: grpo update 10" if is_killed else None)
    if event == "round":
        assert "train 0" not in got["events"]  # what an earlier launch had sampled is not again
    elif not is_killed:
        assert got["events"].count(event) == nth and got["events"][-1] == event
    assert not (stopped[0] / "FAILED").exists()  # the run went on


def test_where_a_stage_is_stands_in_its_checkpoints(stopped):
    def cursor(what):
        got = stopped[1][what]["newest"][1]
        return tuple(got[name] for name in ("iteration", "update", "taken", "evaluated"))

    assert cursor("the middle of SFT") == (2, 0, 4, 0)
    assert cursor("the evaluation at the end of SFT") == (3, 0, 6, 0)
    assert cursor("the evaluation before GRPO") == (0, 0, 0, -1)
    assert cursor("between sampling and updates") == (0, 0, 0, 0)
    assert cursor("the end of the rewards") == (0, 0, 0, 0)
    assert cursor("the middle of the first epoch") == (0, 1, P, 0)
    assert cursor("the middle of the second epoch") == (0, 3, P, 0)
    assert cursor("the end of an iteration") == (1, 0, P, 0)


def test_a_checkpoint_has_the_accuracy_of_its_own_parameters(straight, stopped):
    """None in the middle of an iteration: those parameters were never evaluated."""
    metric = {what: got["about"].metric for what, got in stopped[1].items()}
    assert metric["the evaluation before GRPO"] is None
    assert metric["between sampling and updates"] == 0.0
    assert metric["the end of the rewards"] == 0.0  # which an earlier launch had measured
    assert metric["the middle of the first epoch"] is None
    assert metric["the end of an iteration"] is None
    for stage in ("sft", "grpo"):
        got = read_about(final(stopped[0], stage))
        assert got.final and got.metric is not None


def test_another_seed_is_another_run(folder, straight):
    """The comparison can fail."""
    other = config()
    other.seed, other.pipeline = 1, ("sft",)
    assert launch(other, folder / "other") == 0
    with pytest.raises(AssertionError):
        assert_same_run(folder / "other", straight)
    there, here = arrays(final(straight, "sft")), arrays(final(folder / "other", "sft"))
    assert there.keys() == here.keys()
    assert sum(there[name] == here[name] for name in there) < len(there) / 4


def test_evaluating_leaves_training_alone(folder, straight):
    quiet = config()
    quiet.stages.sft.evaluate_every = quiet.stages.grpo.evaluate_every = 0
    quiet.pipeline = ("sft", "grpo")
    assert launch(quiet, folder / "quiet") == 0
    for stage in ("sft", "grpo"):
        assert arrays(final(folder / "quiet", stage)) == arrays(final(straight, stage))
    loud = [row for row in rows(straight, "metrics") if "loss" in row]
    assert rows(folder / "quiet", "metrics") == loud
    name = "rollouts.jsonl"
    assert (folder / "quiet" / name).read_bytes() == (straight / name).read_bytes()


def test_a_finished_run_computes_nothing(straight, capsys):
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.is_file()}
    with watched(stop_at("")) as events:
        assert launch(config(), straight) == 0
    assert events == []
    assert "This run is finished." in capsys.readouterr().out
    free = {straight / "config.json", straight / "lock"}
    after = {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path] and path not in free] == []


def test_another_config_is_refused(straight, capsys):
    other = config()
    other.stages.grpo.loss.kl_coef = 0.5
    assert launch(other, straight) == 2
    assert "stages.grpo.loss.kl_coef was 0.08, is 0.5" in capsys.readouterr().err
    other = config()
    other.log.every_s = 7.0  # changes nothing that is computed
    other.checkpoint.keep_last = 3
    assert launch(other, straight) == 0


def test_what_could_not_begin_can_begin_otherwise(folder, capsys):
    """A config that was refused by its data leaves nothing that binds the next one."""
    wrong, right = config(), config()
    wrong.data.update(max_prompt=8, buckets=(8,))
    wrong.model.vocab, right.pipeline = 410, ("sft",)
    right.stages.sft.update(steps=1, evaluate_every=0)
    assert launch(wrong, folder / "wrong") == 2
    assert "prompts of 8" in capsys.readouterr().err
    assert launch(right, folder / "wrong") == 0
    assert Tokenizer.load(folder / "wrong" / "tokenizer.model", "gemma3").vocab_size == 400


def test_one_process_at_a_time(folder, capsys):
    (folder / "busy").mkdir()
    with locked(folder / "busy"):
        assert launch(config(), folder / "busy") == 2
    assert "another process is at work in it" in capsys.readouterr().err


FILE = """
from tests.small_run import small, small_sft


def get_config(variant=""):
    config = small()
    config.stages.sft = small_sft()
    config.stages.sft.update(steps=60, checkpoint_every=1000)
    config.pipeline = ("sft",)
    return config
"""


def test_signals_stop_a_process_that_goes_on_later(folder, tmp_path):
    (tmp_path / "config.py").write_text(FILE)
    journal = tmp_path / "run" / "metrics.jsonl"
    command = [
        sys.executable, "launch.py", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for number in (signal.SIGINT, signal.SIGTERM):
        before = len(journal.read_bytes()) if journal.exists() else 0
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        limit = time.monotonic() + 60
        while not journal.exists() or len(journal.read_bytes()) <= before:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
        process.send_signal(number)
        _, got = process.communicate(timeout=30)
        assert process.returncode == 75, got.decode()
        assert f"stopped by {number.name}" in got.decode()
        assert newest(tmp_path / "run", "sft")[0] == len(rows(tmp_path / "run", "metrics")) < 60
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert [row["step"] for row in rows(tmp_path / "run", "metrics")] == [*range(1, 61)]
