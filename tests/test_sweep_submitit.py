"""Shards as jobs of submitit: its local mode itself, and Slurm's commands played by scripts."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import types
from typing import Any

import pytest

from grpo.storage.journal import read_journal
from grpo.sweeps.submitit_jobs import ANY_CLUSTER, Shard, SubmitError, submit, wait
from grpo.tools import sweep
from tests.fake_sweep import ROOT, driver_of, lines, until, words_of
from tests.processes import PROC, processes

submitit: Any = pytest.importorskip(
    "submitit", reason="submitit is not installed: pip install -e '.[submitit]'"
)
LONG = {"a": "long", "b": "slow"}
SHUFFLED = "configs/sweeps/shuffled.py"


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """The top of the tree; what a test has started does not outlive it, however it ends."""
    monkeypatch.chdir(ROOT)
    yield
    for pid in processes():
        with contextlib.suppress(OSError):
            if str(tmp_path).encode() in (PROC / str(pid) / "cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


def begun(workdir, name):
    """Whether a fake cell has a few rows."""
    return len(lines(workdir / "cells" / name / "metrics.jsonl")) > 2


def has_saved(workdir, name, times):
    """That a cell was asked to stop so often, each time once, and did so."""
    stops = lines(workdir / "cells" / name / "stops")
    assert len(stops) == len(set(stops)) == times
    states = [row["state"] for row in read_journal(workdir / "jobs" / name / "launches.jsonl")]
    assert states[:times] == ["stopped"] * times
    return states[times:]


def goes_on(workdir, name):
    """That no row of a cell is missing or there twice."""
    found = read_journal(workdir / "cells" / name / "metrics.jsonl")
    assert [row["iteration"] for row in found] == [*range(len(found))]


def child_of(pid):
    """The only process that another one has started."""
    (child,) = [n for n, seen in processes().items() if seen.parent == pid]
    return child


def enough(workdir, name):
    (workdir / "cells" / name / "enough").touch()


def log_of(job):
    """What submitit says of a job, and what the job says."""
    return "".join(path.read_text() for path in (job.paths.stdout, job.paths.stderr))


def test_a_preempted_job_saves_and_goes_on(tmp_path):
    words = words_of(tmp_path, json.dumps(LONG))
    (job,) = submit("local", tmp_path / "submitit", {}, [words])
    until(lambda: all(begun(tmp_path, name) for name in LONG))
    os.kill(child_of(int(job.job_id)), signal.SIGUSR2)
    for name in LONG:
        until(lambda name=name: len(lines(tmp_path / "cells" / name / "starts")) == 2)
        enough(tmp_path, name)
    wait([job], 0.1)
    for name in LONG:
        assert has_saved(tmp_path, name, times=1) == ["done"]
        goes_on(tmp_path, name)
    assert "this job is preempted" in log_of(job) and "completed successfully" in log_of(job)


def test_a_job_whose_time_runs_out_saves_and_goes_on(tmp_path):
    """The signal is submitit's own here: after four seconds, or once more where that is early."""
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(timeout_min=1, signal_delay_s=56)
    job = executor.submit(Shard(words_of(tmp_path, json.dumps({"a": "long"}))))
    until(lambda: job.paths.stderr.exists() and "this job is timed-out" in log_of(job))
    until(lambda: (tmp_path / "cells" / "a").exists())
    enough(tmp_path, "a")
    wait([job], 0.1)
    stops, starts = (lines(tmp_path / "cells" / "a" / name) for name in ("stops", "starts"))
    assert len(starts) == len(stops) + 1 and has_saved(tmp_path, "a", len(stops)) == ["done"]
    goes_on(tmp_path, "a")


def test_a_job_whose_time_runs_out_too_often_saves_and_ends(tmp_path):
    words = words_of(tmp_path, json.dumps({"a": "long"}))
    options = {"timeout_min": 5, "max_num_timeout": 0}
    (job,) = submit("local", tmp_path / "submitit", options, [words])
    until(lambda: begun(tmp_path, "a"))
    os.kill(child_of(int(job.job_id)), signal.SIGUSR2)
    until(lambda: lines(tmp_path / "cells" / "a" / "stops"))
    enough(tmp_path, "a")  # if it went on, it would end
    wait([job], 0.1)
    assert has_saved(tmp_path, "a", times=1) == []
    assert "not requeued because: timed-out too many times" in log_of(job)


@pytest.mark.parametrize("of_all", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_whoever_waits_for_jobs_may_stop_them(tmp_path, of_all):
    """Ctrl-C is heard by all processes of a terminal."""
    command = [sys.executable, "-m", "tests.fake_submit", str(tmp_path), json.dumps(LONG)]
    waiting = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    until(lambda: all(begun(tmp_path, name) for name in LONG))
    if of_all:
        os.killpg(waiting.pid, signal.SIGINT)
    else:
        waiting.terminate()
    assert waiting.wait(timeout=30) == 0
    for name in LONG:
        assert has_saved(tmp_path, name, times=1) == []
        enough(tmp_path, name)
    assert driver_of(tmp_path, LONG, io.StringIO()).drive() == 0
    for name in LONG:
        goes_on(tmp_path, name)


DEAF_AT_FIRST = """
import signal
signal.alarm(20)
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
print("listens", flush=True)
while len(heard) < 3:
    signal.pause()
"""


def test_jobs_are_stopped_however_early(tmp_path):
    """One that is just starting may lose what it is told."""
    process = subprocess.Popen([sys.executable, "-c", DEAF_AT_FIRST], stdout=subprocess.PIPE)
    with process:
        assert process.stdout and process.stdout.readline()
        job = types.SimpleNamespace(
            job_id=str(process.pid), done=lambda: process.poll() is not None
        )
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        wait([job], 0.05)
    assert process.returncode == 0


SEES = """
import os, sys
print("sees", os.environ.get("CUDA_VISIBLE_DEVICES"))
sys.exit(len(sys.argv) - 1)
"""


@pytest.mark.parametrize(
    ("here", "options", "seen"),
    [("3,5", {}, "3,5"), (None, {}, "None"), ("3,5", {"gpus_per_node": 1}, "0")],
)
def test_the_accelerators_that_a_local_job_sees(tmp_path, monkeypatch, here, options, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if here is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here)
    words = [sys.executable, "-c", SEES]
    fine, failed = jobs = submit("local", tmp_path, options, [words, [*words, "fails"]])
    wait(jobs, 0.05)
    for job in jobs:
        assert f"sees {seen}\n" in log_of(job)
    assert "completed successfully" in log_of(fine)
    assert "CalledProcessError" in log_of(failed) and "exit status 1" in log_of(failed)


SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do [[ "$1" == --unbuffered ]] && shift || shift 2; done
exec "$@"
"""
SBATCH = """#!/bin/bash
[[ -e refused ]] && { echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1; }
echo "Submitted batch job 77"
"""
SCONTROL = """#!/bin/bash
echo "$@: $(wc -l < "$STOPS") has saved" >> "$(dirname "$0")/asked"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with what passes for Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"srun": SRUN, "sbatch": SBATCH, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_an_array_of_slurm(tmp_path, slurm):
    """What sbatch is given, and what a task of it does when its time runs out."""
    options = {"timeout_min": 60, "partition": "gpu", "setup": "export WAS_SET_UP=1"}
    words = words_of(tmp_path, json.dumps({"a": "slow"}))
    jobs = submit("slurm", tmp_path / "submitit", options, [["false"], words])
    assert [job.job_id for job in jobs] == ["77_0", "77_1"]
    script = tmp_path / "submitit" / "77_submission.sh"
    text = script.read_text()
    for line in ("partition=gpu", "time=60", "array=0-1%2", "signal=USR2@120"):
        assert f"#SBATCH --{line}\n" in text
    assert "\nexport WAS_SET_UP=1\n" in text
    task = {"SLURM_JOB_ID": "78", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "1"}
    task["STOPS"] = str(tmp_path / "cells" / "a" / "stops")
    codes = []
    for _ in range(2):
        with subprocess.Popen(["/bin/bash", str(script)], env={**os.environ, **task}) as batch:
            until(lambda: begun(tmp_path, "a"))
            if codes:
                enough(tmp_path, "a")
            else:
                os.kill(child_of(batch.pid), signal.SIGUSR2)
        codes.append(batch.returncode)
    assert codes == [255, 0] and lines(slurm / "asked") == ["requeue 77_1: 1 has saved"]
    assert has_saved(tmp_path, "a", times=1) == ["done"]
    goes_on(tmp_path, "a")


def test_what_sbatch_refuses_is_one_line(tmp_path, slurm, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("refused").touch()
    with pytest.raises(SubmitError) as error:
        submit("slurm", tmp_path / "submitit", {"timeout_min": 60}, [["false"]])
    assert str(error.value) == "--submit=slurm: sbatch: error: invalid partition specified: gpu"


def said(monkeypatch, capsys, *words):
    """What the command prints to stderr before it ends with code 2."""
    monkeypatch.setattr("sys.argv", ["sweep", *words])
    with pytest.raises(SystemExit) as end:
        sweep.main()
    assert end.value.code == 2
    return capsys.readouterr().err


LOCAL = ("--submit=local", "--tasks=2")
SLURM = ("--submit=slurm", "--submit_option=timeout_min=9")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--submit=local"], "--tasks: how many? All local jobs run at a time"),
        ([*LOCAL, "--shard=0/2"], "--shard: --submit gives each of its --tasks one"),
        (["--submit_option=a=1"], "--submit_option: is of --submit, which is not given"),
        ([*LOCAL, "--submit_option=a"], "argument --submit_option: 'a': expected NAME=VALUE"),
        ([*LOCAL, "--emit=slurm"], "argument --emit: not allowed with argument --submit"),
        ([*LOCAL, "--submit_option=nodes=2"],
            "--submit_option=nodes: a job is one process; --tasks says how many there are"),
        ([*LOCAL, "--submit_option=max_num_timeout=x"],
            "--submit_option=max_num_timeout=x: expected an integer"),
        ([*LOCAL, "--submit_option=partition=gpu"],
            "--submit=local: Unknown argument 'partition' for executor 'local' in parameter "
            "'local_partition'. Valid arguments: setup"),
        ([*LOCAL, "--submit_option=timeout_min=2h"],
            "--submit=local: Parameter \"timeout_min\" expected type <class 'int'> (but value: "
            '"2h")'),
        (["--submit=slurm"],
            "--submit_option=timeout_min=...: is missing: how many minutes may a job take?"),
        ([*SLURM], '--submit=slurm: Could not detect "srun", are you indeed on a slurm cluster?'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_runs(tmp_path, monkeypatch, capsys, flags, line):
    told = said(monkeypatch, capsys, SHUFFLED, f"--workdir={tmp_path / 'runs'}", *flags)
    assert told == f"error: {line}\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_submitit(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    told = said(monkeypatch, capsys, SHUFFLED, f"--workdir={tmp_path / 'runs'}", *LOCAL)
    assert told == "error: --submit needs submitit: pip install -e '.[submitit]'\n"
    assert not (tmp_path / "runs").exists()


def test_the_command_ends_where_slurm_goes_on(tmp_path, slurm, monkeypatch, capsys):
    flags = [SHUFFLED, f"--workdir={tmp_path / 'runs'}", *SLURM, "--tasks=3", "--retry_failed"]
    assert sweep.sweep(sweep.parser().parse_args(flags)) == 0
    told = capsys.readouterr().out
    assert told.startswith("submitted as 77_0, 77_1, 77_2: ") and told.count("\n") == 1
    jobs = [
        submitit.SlurmJob(tmp_path / "runs" / "submitit", f"77_{i}").submission() for i in range(3)
    ]
    for i, job in enumerate(jobs):
        start, shard = job.function.words[:3], job.function.words[-2:]
        assert start == [sys.executable, "-m", "grpo.tools.sweep"]
        assert shard == ["--retry_failed", f"--shard={i}/3"]


def test_options_that_submitit_translates():
    assert set(ANY_CLUSTER) == set(submitit.AutoExecutor._typed_parameters())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timeout_min=60", 60), ("mem_gb=7.5", 7.5), ("partition=gpu,long", "gpu,long"),
        ("exclusive=true", True), ("time=1-00:00:00", "1-00:00:00"), ("comment=a=b", "a=b"),
        ('setup=["a", "b"]', ["a", "b"]),
    ],
)  # fmt: skip
def test_the_value_of_an_option(text, value):
    flags = sweep.parser().parse_args([SHUFFLED, "--submit=slurm", f"--submit_option={text}"])
    assert flags.submit_option == [(text.partition("=")[0], value)]
