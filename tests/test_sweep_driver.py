"""Drivers, with jobs that are no training runs: what happens to each, and that it happens once."""

import io
import os
import signal
import subprocess
import time
from typing import cast

import pytest

from grpo.storage.journal import read_journal
from grpo.sweeps.claims import give_back, path_of, renew, take
from grpo.sweeps.jobs import standing
from grpo.sweeps.launching import Launch, ask_to_stop
from tests.fake_sweep import driver_of, jobs_of, lines, started, until

FINE = {"a": "fine", "b": "fine", "c": "fine"}


def launches(workdir, name):
    return read_journal(workdir / "jobs" / name / "launches.jsonl")


def driven(workdir, behaviours, **changes):
    """The exit code of a driver, and what it said."""
    stream = io.StringIO()
    return driver_of(workdir, behaviours, stream, **changes).drive(), stream.getvalue()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A sweep of all kinds, what its driver said, and the code."""
    workdir = tmp_path_factory.mktemp("mixed")
    behaviours = {"bad": "broken", "a": "fine", "oom": "killed", "hung": "hanging", "z": "fine"}
    return workdir, behaviours, *driven(workdir, behaviours, cell_seconds=1.0)


def test_what_fails_is_reported_and_the_others_go_on(mixed):
    workdir, _, code, said = mixed
    assert code == 1
    found = {name: launches(workdir, name) for name in ("bad", "a", "oom", "hung", "z")}
    assert {name: [row["state"] for row in rows] for name, rows in found.items()} == {
        "bad": ["failed"], "a": ["done"], "oom": ["failed"], "hung": ["failed"], "z": ["done"],
    }  # fmt: skip
    reasons = {name: rows[0]["reason"] for name, rows in found.items()}
    assert reasons == {
        "bad": "TroubleError: loss is not finite",
        "a": None,
        "oom": "killed by SIGKILL, as it is by a system out of memory",
        "hung": "killed: no row in its journals for 1 seconds",
        "z": None,
    }
    assert [found[name][0]["code"] for name in ("bad", "a", "oom", "hung")] == [1, 0, -9, -9]
    for name, reason in reasons.items():
        assert f"{name}: {'failed: ' + reason if reason else 'done'}" in said
    assert 1.0 <= found["hung"][0]["seconds"] < 20.0


def test_failed_ones_are_not_tried_again_unless_asked_for(mixed):
    workdir, behaviours, *_ = mixed
    code, said = driven(workdir, behaviours)
    assert code == 1 and "failed:" not in said
    assert len(lines(workdir / "cells/bad/starts")) == 1
    assert driven(workdir, {**behaviours, "bad": "fine", "oom": "fine", "hung": "fine"})[0] == 1
    mended = {"bad": "fine", "a": "broken", "oom": "broken", "hung": "fine", "z": "fine"}
    assert driven(workdir, mended, retry_failed=True)[0] == 1
    states = {name: [row["state"] for row in launches(workdir, name)] for name in mended}
    assert states == {
        "bad": ["failed", "done"], "a": ["done"], "oom": ["failed", "failed"],
        "hung": ["failed", "done"], "z": ["done"],
    }  # fmt: skip


def test_a_second_run_does_nothing(tmp_path):
    assert driven(tmp_path, FINE)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert driven(tmp_path, FINE)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_killed_driver_goes_on_where_its_cells_were(tmp_path):
    behaviours = {"a": "long", "b": "long", "c": "fine"}
    metrics = {name: tmp_path / "cells" / name / "metrics.jsonl" for name in "ab"}
    with started(tmp_path, behaviours) as driver:
        until(lambda: all(len(lines(file)) > 2 for file in metrics.values()))
        driver.kill()
        driver.communicate()
    # Its cells end with it, saved.
    until(lambda: all((tmp_path / "cells" / name / "stops").exists() for name in "ab"))
    rows = {name: len(lines(file)) for name, file in metrics.items()}
    for name in "ab":
        (tmp_path / "cells" / name / "enough").touch()
    assert driven(tmp_path, behaviours)[0] == 0
    for name, file in metrics.items():
        found = read_journal(file)
        assert [row["iteration"] for row in found] == [*range(len(found))]
        assert len(found) == rows[name] + 1  # it went on, and then had enough
        assert len(lines(tmp_path / "cells" / name / "ends")) == 1
        assert [row["state"] for row in launches(tmp_path, name)] == ["done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_asked_to_stop_has_its_cells_save(tmp_path, number):
    behaviours = {"a": "long", "b": "long", "c": "fine"}
    with started(tmp_path, behaviours) as driver:
        until(lambda: all(lines(tmp_path / "cells" / name / "metrics.jsonl") for name in "ab"))
        driver.send_signal(number)
        _, said = driver.communicate(timeout=60)
    assert driver.returncode == 75, said
    for name in "ab":
        assert [row["state"] for row in launches(tmp_path, name)] == ["stopped"]
        assert len(lines(tmp_path / "cells" / name / "stops")) == 1
        (tmp_path / "cells" / name / "enough").touch()
    assert not (tmp_path / "cells" / "c").exists()
    assert driven(tmp_path, behaviours)[0] == 0
    assert [row["state"] for row in launches(tmp_path, "a")] == ["stopped", "done"]


def test_a_cell_that_stopped_by_itself_waits_for_the_next_command(tmp_path):
    behaviours = {"a": "saved", "b": "fine"}
    assert driven(tmp_path, behaviours)[0] == 75
    assert len(lines(tmp_path / "cells" / "a" / "starts")) == 1
    assert [row["state"] for row in launches(tmp_path, "b")] == ["done"]
    assert driven(tmp_path, behaviours)[0] == 75
    assert [row["state"] for row in launches(tmp_path, "a")] == ["stopped", "stopped"]


def test_two_drivers_run_each_cell_once(tmp_path):
    behaviours = {f"cell{n}": "fine" for n in range(10)}
    with started(tmp_path, behaviours) as one, started(tmp_path, behaviours) as other:
        said = [driver.communicate(timeout=120)[1] for driver in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    for name in behaviours:
        assert len(lines(tmp_path / "cells" / name / "starts")) == 1, name
        assert len(launches(tmp_path, name)) == 1
    ended = [text.count(": done") for text in said]
    assert sum(ended) == 10 and all(ended)


def test_what_begins_from_a_shared_run_waits_for_it(tmp_path):
    behaviours = {"s": "fine", "a<s": "fine", "b<s": "fine", "c": "fine"}
    assert driven(tmp_path, behaviours, workers=4)[0] == 0
    (ended,) = [row["ended"] for row in launches(tmp_path, "s")]
    assert all(launches(tmp_path, name)[0]["began"] >= ended for name in "ab")
    assert launches(tmp_path, "c")[0]["began"] < ended


def test_cells_of_a_shared_run_that_failed_are_failed(tmp_path):
    behaviours = {"s": "broken", "a<s": "fine", "c": "fine"}
    driver = driver_of(tmp_path, behaviours, io.StringIO())
    assert driver.drive() == 1
    reason = "its shared run s failed: TroubleError: loss is not finite"
    assert driver.state("a") == ("failed", reason)
    assert standing(tmp_path, jobs_of(behaviours), "a") == ("failed", reason)  # for cells.jsonl
    assert standing(tmp_path, jobs_of(behaviours), "c") == ("done", None)
    assert not (tmp_path / "cells" / "a").exists()
    assert driven(tmp_path, {**behaviours, "s": "fine"}, retry_failed=True)[0] == 0
    assert [row["state"] for row in launches(tmp_path, "a")] == ["done"]


def test_a_shared_run_that_nobody_needs_any_more_is_not_run(tmp_path):
    assert driven(tmp_path, {"a": "fine"})[0] == 0
    assert driven(tmp_path, {"s": "fine", "a<s": "fine"})[0] == 0
    assert not (tmp_path / "shared").exists()


def test_a_run_that_ended_unseen_is_done(tmp_path):
    (tmp_path / "cells" / "a").mkdir(parents=True)
    (tmp_path / "cells" / "a" / "DONE").write_text("{}")
    assert driven(tmp_path, {"a": "broken"})[0] == 0
    assert not (tmp_path / "cells" / "a" / "starts").exists()


def test_a_claim_that_is_taken_over_ends_the_cell(tmp_path):
    """As where this machine was frozen for longer than a claim lasts."""
    with started(tmp_path, {"a": "long"}, workers=1) as driver:
        until(lambda: lines(tmp_path / "cells" / "a" / "metrics.jsonl"))
        folder = tmp_path / "jobs" / "a"
        other = '{"host": "elsewhere", "machine": "m", "pid": 1, "started": 0}'
        (folder / "claim.1").write_text(other)
        pid = int(lines(tmp_path / "cells" / "a" / "starts")[0])
        until(lambda: not os.path.exists(f"/proc/{pid}"))
        assert not (folder / "launches.jsonl").exists()  # that is for its new owner to say
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=60)
    assert "a: taken over by elsewhere, process 1" in said and driver.returncode == 75


def test_what_ended_before_its_claim_is_not_run_again(tmp_path, monkeypatch):
    """Another driver ran it between this one's look and its claim; what waits for it is run."""
    behaviours = {"s": "fine", "a<s": "fine"}
    driver = driver_of(tmp_path, behaviours, io.StringIO())

    def slow_take(folder, *, stale_seconds):
        monkeypatch.undo()
        assert driven(tmp_path, {"s": "fine"})[0] == 0
        return take(folder, stale_seconds=stale_seconds)

    monkeypatch.setattr("grpo.sweeps.driver.take", slow_take)
    (tmp_path / "shared").symlink_to("cells")  # that driver has it for a cell
    assert driver.drive() == 0
    for name in "sa":
        assert len(lines(tmp_path / "cells" / name / "starts")) == 1


def test_a_second_signal_ends_cells_that_do_not_stop(tmp_path):
    with started(tmp_path, {"a": "deaf"}, workers=1) as driver:
        until(lambda: lines(tmp_path / "cells" / "a" / "metrics.jsonl"))
        driver.send_signal(signal.SIGTERM)
        until(lambda: (tmp_path / "cells" / "a" / "heard").exists())
        driver.send_signal(signal.SIGTERM)
        driver.communicate(timeout=60)
    assert driver.returncode == 75
    (row,) = launches(tmp_path, "a")
    assert (row["state"], row["code"], row["reason"]) == ("stopped", -9, None)


def test_a_cell_is_asked_once(tmp_path):
    """A second signal would have it end at once, unsaved."""
    claim = take(tmp_path / "jobs" / "a", stale_seconds=9.0)
    sent = []

    class Process:
        send_signal = sent.append

    assert claim is not None
    process = cast(subprocess.Popen, Process())
    launched = Launch(jobs_of({"a": "fine"})["a"], claim, process, 0.0, 0, 0.0)
    ask_to_stop(launched)
    ask_to_stop(launched)
    assert sent == [signal.SIGTERM]


def test_of_many_only_one_takes_a_claim(tmp_path, monkeypatch):
    """All of them have seen that the last one is stale."""
    first = take(tmp_path, stale_seconds=9.0)
    assert first is not None
    give_back(first)
    second = take(tmp_path, stale_seconds=9.0)
    monkeypatch.setattr("grpo.sweeps.claims.last", lambda folder: 0)
    assert second is not None and take(tmp_path, stale_seconds=9.0) is None


def test_a_claim(tmp_path):
    mine = take(tmp_path, stale_seconds=100.0)
    assert mine is not None and mine.number == 0 and renew(mine)
    assert take(tmp_path, stale_seconds=100.0) is None
    os.utime(path_of(*mine), (time.time() - 101, time.time() - 101))
    next_one = take(tmp_path, stale_seconds=100.0)
    assert next_one is not None and next_one.number == 1
    assert not renew(mine) and renew(next_one)
    give_back(next_one)
    third = take(tmp_path, stale_seconds=100.0)
    assert third is not None and third.number == 2


def test_a_claim_of_a_process_that_is_gone_is_free_at_once(tmp_path):
    behaviours = {"a": "fine"}
    with started(tmp_path, behaviours, workers=1) as driver:
        driver.communicate(timeout=60)
    claim = tmp_path / "jobs" / "a" / "claim.0"
    os.utime(claim)  # as if it had not been given back
    assert take(claim.parent, stale_seconds=1e6) is not None
    claim.with_name("claim.1").write_text("{half")
    os.utime(claim.with_name("claim.1"))
    assert take(claim.parent, stale_seconds=1e6) is None  # who that is nobody knows


def test_jobs_of_a_fake_sweep():
    jobs = jobs_of({"s": "fine", "a<s": "fine"})
    assert jobs["a"].parent == "s" and jobs["s"].directory == "shared/s"
    assert jobs["a"].lengths == {"grpo": 4}
