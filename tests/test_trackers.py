"""Metrics sent on: what a tracker is told, when it is off, and that each row is sent once."""

import sys
import threading
import types

import pytest

from grpo.reporting import trackers
from grpo.storage.journal import Journal
from grpo.tools.track import forward, main
from tests.hostile_run import make_run


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path / "my-run", 160, lambda text: text)
    (made / "metrics.jsonl").unlink()
    journal = Journal(made / "metrics.jsonl")
    journal.write({"stage": "s0", "step": 1, "iteration": 0, "loss": 0.5, "kl": float("nan")})
    journal.write({"stage": "s0", "step": 1, "iteration": 1, "eval/accuracy/strict": 0.25})
    journal.write({"stage": "s1", "step": 1, "iteration": 0, "loss": 0.125})
    journal.write({"stage": "check", "policy": "s1", "accuracy/strict": 0.75})
    return made


SENT = [
    ("s0/loss", 0.5, 1),
    ("s0/eval/accuracy/strict", 0.25, 1),
    ("s1/loss", 0.125, 1),
    ("check/s1/accuracy/strict", 0.75, 0),
]


def stand_in(monkeypatch, name, **content):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))


def test_tensorboard(run, monkeypatch, capsys):
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, *words):
            told.append(words)

        def close(self):
            told.append("closed")

    stand_in(monkeypatch, "tensorboardX", SummaryWriter=Writer)
    assert main([str(run), "--to=tensorboard"]) == 0
    assert told == [(str(run / "tensorboard"), 0), *SENT, "closed"]
    assert "4 rows" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_with_an_axis_for_each_stage(run, monkeypatch, name):
    told, logged = {}, []
    session = types.SimpleNamespace(
        log=logged.append,
        finish=lambda: logged.append("closed"),
        define_metric=lambda what, step_metric: told.update({what: step_metric}),
    )

    def init(**words):
        told.update(words)
        return session

    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    stand_in(monkeypatch, name, init=init, log=session.log, finish=session.finish)
    assert main([str(run), f"--to={name}"]) == 0
    assert told["project"] == "gemma-grpo" and told["name"] == "my-run"
    assert told["config"]["pipeline"] == ["s0", "s1", "check"]
    assert logged == [
        {f"{tag.partition('/')[0]}/step": step, tag: value} for tag, value, step in SENT
    ] + ["closed"]
    assert name == "trackio" or told["s1/*"] == "s1/step"


def test_off_without_a_key(run, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert main([str(run), "--to=wandb"]) == 0
    assert "wandb is off" in capsys.readouterr().out


def test_a_package_that_is_not_there(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert main([str(run), "--to=trackio"]) == 0
    assert "pip install 'gemma-grpo[trackio]'" in capsys.readouterr().out


def test_a_tracker_that_fails_costs_its_own_process(run, monkeypatch, capsys):
    closed = []

    def send(*words):
        raise ConnectionError("no network")

    made = trackers.Tracker(send, lambda: closed.append(True))
    monkeypatch.setitem(trackers.TRACKERS, "trackio", lambda *words: made)
    assert main([str(run), "--to=trackio"]) == 1
    assert "ConnectionError: no network" in capsys.readouterr().err and closed == [True]


def test_rows_are_sent_once_though_a_run_writes_them_again(run):
    """Also where its journal was cut back in between, and each kind of row of a step by itself."""
    rows, seen = Journal(run / "metrics.jsonl").rows(), set()
    assert [metrics for *_, metrics in trackers.new_rows(rows[:2], seen)] == [
        {"loss": 0.5}, {"eval/accuracy/strict": 0.25},
    ]  # fmt: skip
    assert list(trackers.new_rows(rows[:1], seen)) == []
    again = list(trackers.new_rows(rows, seen))
    assert [(stage, step) for stage, step, _ in again] == [("s1", 1), ("check", 0)]


def test_following_ends_with_the_run(run):
    (run / "FAILED").unlink()
    sent = []
    tracker = trackers.Tracker(lambda *words: sent.append(words), lambda: None)
    counts = []

    def follow():
        counts.append(forward(run, tracker, follow=True, every_s=0.01))

    thread = threading.Thread(target=follow)
    thread.start()
    Journal(run / "metrics.jsonl").write({"stage": "s1", "step": 2, "loss": 0.0625})
    (run / "DONE").write_text("{}")
    thread.join(20)
    assert not thread.is_alive() and counts == [5] and sent[-1] == ("s1", 2, {"loss": 0.0625})


def test_no_run(tmp_path, capsys):
    assert main([str(tmp_path), "--to=tensorboard"]) == 2
    assert "no config.json" in capsys.readouterr().err
