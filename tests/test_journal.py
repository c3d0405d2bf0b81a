"""Journals: rows survive being cut anywhere, a full disk, and a resume; equal runs, equal bytes."""

import io
import json
import math
import os
import resource
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from grpo.storage.journal import Journal, JournalError, read_journal


def every(row):
    return True


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.jsonl"


def test_rows_are_lines_with_their_keys_in_order(path):
    journal = Journal(path)
    journal.write({"step": 1, "reward": 0.1, "right": True, "note": None})
    journal.write({"b": [1, 2.5, "x"], "a": {"deep": (1,)}})
    assert path.read_bytes() == (
        b'{"step":1,"reward":0.1,"right":true,"note":null}\n{"b":[1,2.5,"x"],"a":{"deep":[1]}}\n'
    )
    assert read_journal(path) == [
        {"step": 1, "reward": 0.1, "right": True, "note": None},
        {"b": [1, 2.5, "x"], "a": {"deep": [1]}},
    ]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "null"),
        (math.inf, "null"),
        (np.float32(-np.inf), "null"),
        ([1.0, math.nan], "[1.0,null]"),
        (np.float32(0.5), "0.5"),
        (np.float64(0.1), "0.1"),
        (1e-7, "1e-07"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
        (np.array(3), "3"),
        (np.array(np.nan), "null"),
        (np.asarray(1.5, ml_dtypes.bfloat16), "1.5"),
        (2**70, "1180591620717411303424"),
    ],
)
def test_numbers(path, value, written):
    Journal(path).write({"v": value})
    assert path.read_text() == f'{{"v":{written}}}\n'


@pytest.mark.parametrize("row", [{"v": np.zeros(2)}, {"v": {1: 2}}, {"v": object()}])
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(path, row):
    with pytest.raises(TypeError):
        Journal(path).write(row)
    assert not path.exists()


@pytest.mark.parametrize("text", ["\ud800", "a\nb\r\u2028\u0085\x00\x1b[2J", "Zoë 数 😀", '"\\'])
def test_any_text_is_one_line_and_comes_back(path, text):
    Journal(path).write({"text": text})
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 1
    assert path.read_bytes().isascii()
    assert read_journal(path) == [{"text": text}]


def test_a_torn_last_line_at_every_byte(path):
    whole = b'{"step":1}\n{"step":2,"text":"\\u00eb\\n"}\n'
    for end in range(len(whole) + 1):
        rows = [json.loads(line) for line in whole[:end].split(b"\n")[:-1]]
        torn = whole[:end].split(b"\n")[-1]
        path.write_bytes(whole[:end])
        assert read_journal(path) == rows
        path.write_bytes(whole[:end])
        Journal(path).write({"step": 9})
        assert read_journal(path) == [*rows, {"step": 9}]
        path.write_bytes(whole[:end])
        assert Journal(path).keep(every) == bool(torn)
        assert path.read_bytes() == whole[: end - len(torn)]


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (b'{"step":', r"not JSON \(Expecting value"),
        (b"", "not JSON"),
        (b"\0\0\0", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "a list, not an object"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_any_other_bad_line_is_an_error(path, middle, reason):
    whole = b'{"step":1}\n' + middle + b'\n{"step":3}\n'
    path.write_bytes(whole)
    with pytest.raises(JournalError, match=rf"train\.jsonl:line 2: {reason}"):
        read_journal(path)
    with pytest.raises(JournalError, match=rf"train\.jsonl:line 2: {reason}"):
        Journal(path).keep(every)
    assert path.read_bytes() == whole


def test_a_bad_last_line_that_has_its_end_is_an_error(path):
    path.write_bytes(b'{"step":1}\n{"st\n')
    with pytest.raises(JournalError, match="line 2"):
        read_journal(path)


def test_keep(path):
    journal = Journal(path)
    # Bytes that this code would write otherwise stay as they are.
    path.write_bytes(b'{"step": 1.50}\n{"step":2}\n{"step":3}\n{"step":1}\n{"ste')
    assert journal.keep(lambda row: row["step"] < 2) == 3
    assert path.read_bytes() == b'{"step": 1.50}\n{"step":1}\n'
    assert [file.name for file in path.parent.iterdir()] == ["train.jsonl"]
    assert journal.keep(lambda row: False) == 2
    assert path.read_bytes() == b""
    assert read_journal(path) == []


def test_keeping_all_touches_nothing(path):
    journal = Journal(path)
    assert journal.keep(every) == 0
    assert not path.exists()
    journal.write({"step": 1})
    before = os.stat(path)
    assert journal.keep(every) == 0
    after = os.stat(path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_keep_is_whole_or_not_at_all(path, monkeypatch):
    whole = b'{"step":1}\n{"step":2}\n'
    path.write_bytes(whole)
    synced = []

    def killed(source, target):
        assert synced, "renamed before the bytes are on the disk"
        assert (os.path.dirname(source), str(target)) == (str(path.parent), str(path))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Journal(path).keep(lambda row: row["step"] == 1)
    assert path.read_bytes() == whole
    monkeypatch.undo()
    assert Journal(path).keep(lambda row: row["step"] == 1) == 1
    assert [file.name for file in path.parent.iterdir()] == ["train.jsonl"]


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk" / "real.jsonl")
    journal = Journal(path)
    journal.write({"step": 1})
    assert journal.keep(lambda row: False) == 1
    assert path.is_symlink()
    assert (tmp_path / "disk" / "real.jsonl").read_bytes() == b""


def test_the_folder_is_made(tmp_path):
    path = tmp_path / "runs" / "a" / "train.jsonl"
    Journal(path).write({"step": 1})
    assert read_journal(str(path)) == [{"step": 1}]


def run(path, steps, stop):
    """A run that resumes after `steps[0]` steps, and stops in the middle of a line."""
    journal = Journal(path)
    journal.keep(lambda row: row["step"] < steps[0])
    for step in range(*steps):
        journal.write({"step": step, "reward": np.float32(step / 3), "text": "é" * step})
    if stop:
        os.truncate(path, os.path.getsize(path) - stop)


def test_a_run_that_was_killed_and_resumed_has_the_same_bytes(path, tmp_path):
    run(tmp_path / "whole.jsonl", (0, 12), stop=0)
    run(path, (0, 7), stop=5)
    run(path, (4, 9), stop=60)
    run(path, (7, 12), stop=0)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_kill_9_loses_no_row(path):
    code = (
        "import sys; from grpo.storage.journal import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "for step in range(10**9):\n"
        "    journal.write({'step': step, 'text': 'x' * 50})\n"
        "    print(step, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(20):
            got = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        got = max([got, *map(int, process.stdout.read().split())])
    steps = [row["step"] for row in read_journal(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) in (got + 1, got + 2)


def test_a_full_disk_costs_rows_but_not_the_run(path, capsys):
    journal = Journal(path)
    journal.write({"step": 1})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, old[1]))  # four bytes of the next line fit
    try:
        journal.write({"step": 2})
        journal.write({"step": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    said = capsys.readouterr().err
    assert said == f"{path}: rows are lost, it cannot be written (File too large)\n"
    journal.write({"step": 4})
    assert path.read_bytes() == b'{"step":1}\n{"step":4}\n'


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_stderr_may_be_full_too(path, monkeypatch):
    journal = Journal(path)
    path.mkdir()
    monkeypatch.setattr(sys, "stderr", Full())
    journal.write({"step": 1})


def test_a_journal_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        read_journal(path)
