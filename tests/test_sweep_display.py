"""What a driver shows, in a terminal and in a log; and where a run is, from its journal."""

import io

import pytest

from grpo.sweeps import display
from grpo.sweeps.display import Display
from grpo.sweeps.jobs import Job, progress_of

COUNTS = {"running": 2, "waiting": 3, "done": 1}
CONFIG = {
    "pipeline": ("sft", "grpo", "test"),
    "stages": {
        "sft": {"kind": "sft", "steps": 30},
        "grpo": {"kind": "grpo", "iterations": 10},
        "test": {"kind": "evaluate"},
    },
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    return now


def test_a_terminal_is_rewritten_in_place(clock):
    stream = Terminal()
    shown = Display(stream, every_s=60.0)
    shown.show([("a", "sft 1/3"), ("long", "starting")], COUNTS, 0.0)
    first = "  a     sft 1/3\n  long  starting\n2 running, 3 waiting, 1 done\n"
    assert stream.getvalue() == first
    shown.say("b: done\x1b[2J")
    assert stream.getvalue() == f"{first}\x1b[3A\r\x1b[Jb: done\n{first}"
    shown.show([], {"done": 6}, 0.0)
    assert stream.getvalue().endswith("\x1b[3A\r\x1b[J6 done\n")
    shown.close()
    shown.say("end")
    assert stream.getvalue().endswith("6 done\nend\n")


def test_a_line_is_no_wider_than_the_terminal(clock):
    stream = Terminal()
    Display(stream, every_s=0).show([("x" * 60, "y")], {"running": 1}, 0.0)
    assert max(map(len, stream.getvalue().split("\n"))) == 39


def test_a_log_has_lines_now_and_then(clock):
    stream = io.StringIO()
    shown = Display(stream, every_s=60.0)
    for _ in range(5):
        shown.show([("a", "sft 1/3")], {"running": 1}, 0.0)
        clock[0] += 20.0
    shown.say("a: done")
    line = "1 running: a sft 1/3\n"
    assert stream.getvalue() == f"{line}{line}a: done\n" and "\x1b" not in stream.getvalue()


def test_the_time_that_is_left(clock):
    """Two of six cells in 100 s, half of one more: 3.5 are left of 40 s each."""
    stream = io.StringIO()
    shown = Display(stream, every_s=0.0)
    shown.show([], {"waiting": 6}, 0.0)
    clock[0] += 100.0
    shown.show([], {"running": 1, "waiting": 3, "done": 2}, 0.5)
    assert stream.getvalue().split("\n")[:2] == [
        "6 waiting", "1 running, 3 waiting, 2 done, 2:20 left",
    ]  # fmt: skip


def test_a_stream_that_fails_is_not_shown_to(clock):
    stream = io.StringIO()
    shown = Display(stream, every_s=0.0)
    stream.close()
    shown.say("x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ("", 0.0)),
        ('{"stage": "sft", "iteration": 14, "learning_rate": 0.1}\n', ("sft 15/30", 15 / 40)),
        ('{"stage": "grpo", "iteration": 5, "eval/problems": 3}\n', ("grpo 5/10", 35 / 40)),
        ('{"stage": "test", "policy": "sft"}\n', ("test", 1.0)),
        ('{"stage": "sft", "iteration": 2, "learning_rate": 1}\n{"stage": "grpo", "iter',
         ("sft 3/30", 3 / 40)),
        ('{"stage": "another"}\n', ("", 0.0)),
        ("7\n", ("", 0.0)),
        ("not JSON\n", ("", 0.0)),
    ],
)  # fmt: skip
def test_where_a_run_is(tmp_path, text, said):
    job = Job("a", "cells/a", CONFIG)
    (tmp_path / "cells/a").mkdir(parents=True)
    (tmp_path / "cells/a/metrics.jsonl").write_text("x" * 9000 * bool(text) + "\n" + text)
    assert progress_of(tmp_path, job) == said
