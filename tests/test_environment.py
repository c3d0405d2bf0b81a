"""What a run tells of its machine: enough to explain other bits, and nothing of its people."""

import io
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys

import jax
import pytest

from grpo.pipeline import record_environment
from grpo.reporting.progress import Progress
from grpo.runs import environment as module
from grpo.runs.environment import (
    SETTINGS,
    VARIABLES,
    changes,
    cores,
    environment,
    processor,
    without_paths,
)
from grpo.storage.journal import read_journal
from tests import tiny_run

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    """Of the variables that say how many threads there are; the devices are there already."""
    jax.devices()
    for name in ("NPROC", "PJRT_NPROC"):
        monkeypatch.delenv(name, raising=False)


def said_of(run) -> str:
    """What a launch says of its environment."""
    stream = io.StringIO()
    object.__setattr__(run, "progress", Progress(stream, every_s=0))
    record_environment(run)
    return stream.getvalue()


def test_versions_and_no_secrets(tmp_path, monkeypatch):
    canaries = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY",
                "USER", "LOGNAME", "HOSTNAME", "HOME", "KAGGLE_KEY", "JAX_COORDINATOR_ADDRESS",
                "JAX_COMPILATION_CACHE_DIR", "XLA_SECRET")  # fmt: skip
    for number, name in enumerate(canaries):
        monkeypatch.setenv(name, f"canary-{number}")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/canary/dump --xla_cpu_use_onednn=false")
    row = environment(tiny_run.run_of(tmp_path))
    text = json.dumps(row)
    assert "canary" not in text
    assert socket.gethostname() not in text
    assert str(ROOT) not in text and os.sep + "home" not in text
    assert set(row) == {
        "python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece",
        "backend", "devices", "processor", "cores", "mesh", "commit", "changed",
        *SETTINGS, *VARIABLES,
    }  # fmt: skip
    assert row["backend"] == "cpu" and row["devices"].startswith("8 x ")
    assert row["XLA_FLAGS"] == "--xla_dump_to=... --xla_cpu_use_onednn=false"


def test_paths_in_flags():
    assert without_paths(None) is None
    assert without_paths(" --a=1\n --b=2") == "--a=1 --b=2"
    assert without_paths("--a=/home/ann/x --b=1,C:\\ann,/x --c") == "--a=... --b=1,... --c"
    assert without_paths("~ann/flags.txt") == "..."  # XLA reads such a file


CPUINFO = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: Some Processor 9000
stepping\t: 1

processor\t: 1
cpu family\t: 25
model\t\t: 1
model name\t: Some Processor 9000
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (CPUINFO, "Some Processor 9000, family 25, model 1"),
        ("processor : 0\nmodel name : Some Processor\n", "Some Processor"),
        ("Hardware : a board\nCPU part : 0xd0c\n", "kind"),
        ("model name :\n", "kind"),
        (None, "kind"),
    ],
)
def test_the_processor(text, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "kind")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processor() == wanted


def test_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    assert cores() == 3
    monkeypatch.setenv("NPROC", "many")
    assert cores() == 3
    monkeypatch.setenv("NPROC", "4")
    assert cores() == 4
    monkeypatch.setenv("PJRT_NPROC", "0")
    assert cores() == 1
    monkeypatch.setenv("PJRT_NPROC", "2")
    assert cores() == 2
    monkeypatch.delenv("NPROC")
    monkeypatch.delenv("PJRT_NPROC")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()


SUM = """
import os, sys
if sys.argv[1] == "pinned":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import jax
import jax.numpy as jnp
from grpo.runs.environment import cores
a, b = (jax.random.normal(jax.random.key(n), (600, 600)) for n in (0, 1))
gradient = jax.jit(jax.grad(lambda a: jnp.sum(jnp.tanh(a @ b) ** 2) ** 0.5))
sys.stdout.write(f"{cores()} {jnp.mean(gradient(a)):.12e}")
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_as_many_cores_as_xla_has():
    """Pinned to one or told of one: the same number of cores, and the same bits."""
    found = {
        name: subprocess.run(
            [sys.executable, "-c", SUM, name],
            cwd=ROOT, env={**os.environ, "XLA_FLAGS": "", **variables},
            capture_output=True, text=True, check=True,
        ).stdout
        for name, variables in {"pinned": {}, "told": {"NPROC": "1"}}.items()
    }  # fmt: skip
    assert found["pinned"] == found["told"] and found["told"].startswith("1 ")


def test_what_changed():
    before = {"jax": "1", "cores": 2, "mesh": None, "gone": 1}
    assert changes(before, {**before}) == []
    here = {"jax": "2", "cores": 2, "mesh": {"fsdp": 2}, "new": 7}
    assert changes(before, here) == ["jax 1 -> 2", "mesh None -> {'fsdp': 2}"]


def test_a_launch_says_what_is_other_than_at_the_last_one(tmp_path, monkeypatch):
    run = tiny_run.run_of(tmp_path)
    assert said_of(run) == ""
    assert said_of(run) == ""
    monkeypatch.setenv("NPROC", "64")
    here = cores()
    monkeypatch.setattr(module, "processor", lambda: "another")
    line = said_of(run)
    assert "other than at the last launch, so bits may differ: processor " in line
    assert line.count("\n") == 1 and f"-> another, cores {len(os.sched_getaffinity(0))} ->" in line
    rows = read_journal(tmp_path / "environment.jsonl")
    assert [row["cores"] for row in rows] == [*[len(os.sched_getaffinity(0))] * 2, here]
    assert said_of(run) == ""  # as at the last launch, not as at the first one
    try:
        jax.config.update("jax_random_seed_offset", 3)
        assert "jax_random_seed_offset 0 -> 3" in said_of(run)
    finally:
        jax.config.update("jax_random_seed_offset", 0)


@pytest.mark.parametrize(
    "left",
    [
        "",  # killed before the first row
        '{"python":"3.1',  # or in it
        '{"python":"' + platform.python_version() + '"}\n',  # of an older version
    ],
)
def test_rows_that_are_missing_or_older(left, tmp_path):
    (tmp_path / "environment.jsonl").write_text(left)
    run = tiny_run.run_of(tmp_path)
    assert said_of(run) == ""
    rows = read_journal(tmp_path / "environment.jsonl")
    assert len(rows) == 1 + left.endswith("\n") and rows[-1] == environment(run)


def test_a_damaged_journal_costs_the_comparison_only(tmp_path):
    (tmp_path / "environment.jsonl").write_text("\0\0\0\n")
    run = tiny_run.run_of(tmp_path)
    line = said_of(run)
    assert "what earlier launches ran on is not known: " in line and line.count("\n") == 1
    assert "environment.jsonl:line 1: not JSON" in line
    last = (tmp_path / "environment.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == environment(run)
