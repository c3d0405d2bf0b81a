"""Hours of a run, what would help it, and how it is said; with a compiler that is made up."""

import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from configs import base
from grpo.pipeline import STAGES
from grpo.rollout.generate import Sampler
from grpo.runs.meshes import devices_here, mesh_of, of_devices, own_mesh
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.topologies.advice import Change, best, changes
from grpo.topologies.bounds import Bounds
from grpo.topologies.hours import Stage, Timed, not_counted
from grpo.topologies.programs import Compiled, Compiler, Found
from grpo.topologies.report import report
from grpo.training.program import Program
from tests.small_run import launch, small, small_evaluate, small_grpo, small_sft, workshop

ROOT = pathlib.Path(__file__).parent.parent
GIB = 2**30
LIMITS = ("compute", "bandwidth", "interconnect")


def found(seconds: float | None, held: int = GIB, limit: str = "compute") -> Found:
    """A program that takes so many seconds, None: that does not fit; and so many bytes."""
    takes = {which: seconds or 0.0 if which == limit else 0.0 for which in LIMITS}
    bounds = None
    if seconds is not None:
        bounds = Bounds(None, takes["compute"], takes["bandwidth"], 0.0, takes["interconnect"])
    refused = None if bounds else "RESOURCE_EXHAUSTED"
    return Found(4, {}, Compiled(held, 0, 0, 0, {}, refused, held), 0, bounds, 16 * GIB)


def stage(*programs: Timed, overlaps: bool = False) -> Stage:
    return Stage("grpo", 10, overlaps, programs)


ITERATION = (
    Timed("update", 10, found(3.0)),
    Timed("rollout", 10, found(2.0)),
    Timed("log-probs", 20, found(0.5)),
    Timed("held out", None, found(100.0)),
)


def test_seconds_of_a_stage():
    assert stage(*ITERATION).seconds == 30 + 20 + 10
    assert stage(*ITERATION).heaviest.name == "update"


@pytest.mark.parametrize(("overlaps", "is_apart", "judged", "seconds"), [
    (True, True, 2.5, 30 + 30),  # the longer of 25 and 20 + 10
    (True, True, 4.0, 30 + 40),
    (False, True, 4.0, 60 + 40),  # they wait for it
    (True, False, 4.0, 60 + 40),  # on the same chips
])  # fmt: skip
def test_judges_read_while_the_policy_samples(overlaps, is_apart, judged, seconds):
    judge = Timed("judged", 10, found(judged), is_apart)
    assert stage(*ITERATION, judge, overlaps=overlaps).seconds == seconds


def test_a_program_that_does_not_fit_is_looked_at_first():
    refused = Timed("decoding weights", 1, found(None, 20 * GIB))
    assert stage(*ITERATION, refused).heaviest.name == "decoding weights"
    assert not stage(*ITERATION, refused).fits and stage(*ITERATION).fits
    large = Timed("rollout", 1, found(1.0, 17 * GIB))
    assert not stage(*ITERATION, large).fits and stage(*ITERATION, large).heaviest is large


def config_of(**mesh) -> dict:
    config = small()
    config.mesh.update(**mesh)
    config.stages.grpo = grpo = small_grpo()
    grpo.lora.rank = 4
    grpo.microbatches = 2
    config.pipeline = ("grpo",)
    return config.to_dict()


HEAVY = {
    ("update", "interconnect"): [
        "--config.model.frozen_weights=whole", "--config.mesh.fsdp=8 --config.mesh.tp=1",
    ],
    ("update", "compute"): [
        "--config.model.remat=none", "--config.stages.grpo.microbatches=1",
    ],
    ("update", "memory"): ["--config.stages.grpo.microbatches=4", "--config.model.remat=full"],
    ("rollout", "bandwidth"): [
        "--config.mesh.fsdp=2 --config.mesh.tp=4", "--config.mesh.fsdp=8 --config.mesh.tp=1",
    ],
    ("rollout", "interconnect"): [
        "--config.mesh.fsdp=8 --config.mesh.tp=1", "--config.model.frozen_weights=whole",
    ],
    ("rollout", "memory"): ["--config.model.seats=4", "--config.model.frozen_weights=split"],
    ("running evaluation, rollout", "memory"): [
        "--config.evaluation.batch=1", "--config.model.frozen_weights=split",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("program", "limit"), HEAVY)
def test_what_is_worth_trying(program, limit):
    it = found(None) if limit == "memory" else found(9.0, limit=limit)
    first = list(changes(config_of(fsdp=4, tp=2), stage(Timed(program, 10, it))))[:2]
    assert [str(change) for change in first] == HEAVY[program, limit]


def test_a_change_touches_its_fields_only():
    config = config_of(fsdp=4, tp=2)
    change = Change({"mesh.tp": 1, "stages.grpo.microbatches": 4})
    other = change.on(config)
    assert (other["mesh"]["tp"], other["stages"]["grpo"]["microbatches"]) == (1, 4)
    assert (config["mesh"]["tp"], config["stages"]["grpo"]["microbatches"]) == (2, 2)
    other["mesh"]["tp"], other["stages"]["grpo"]["microbatches"] = 2, 2
    assert other == config


def test_the_best_change_is_said():
    slow, fast, large = (
        stage(Timed("update", 3600, found(seconds, held)))
        for seconds, held in ((2.0, GIB), (1.5, GIB), (1.0, 20 * GIB))
    )
    more, whole = Change({"mesh.tp": 4}), Change({"model.frozen_weights": "whole"})
    said = best(slow, [(more, fast), (whole, large)])
    assert said == "--config.mesh.tp=4: grpo takes 1.50 h in place of 2.00 h"
    assert best(fast, [(more, slow)]) == (
        "nothing that was compiled is faster; tried: --config.mesh.tp=4"
    )
    assert best(large, [(more, slow)]) == (
        "--config.mesh.tp=4: grpo takes 2.00 h in place of what does not fit"
    )
    assert best(large, [(more, large)]) == (
        "no change was found that fits or helps; compiled with: --config.mesh.tp=4"
    )


def test_what_is_not_counted_is_said():
    config = small()
    config.judges.server = base.judge(url="https://host/v1", name="m")
    config.stages.grpo = grpo = small_grpo()
    grpo.update(dynamic_sampling="refill", max_rounds=3)
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="server")
    said = not_counted(config.to_dict(), [stage(*ITERATION)])
    assert said[-3:] == [
        "grpo: held out, 100.00 s each",
        "grpo: further rounds, 2 at most",
        "grpo: waiting for https://host/v1",
    ]


def test_a_run_calls_its_programs_as_often_as_is_reckoned(tmp_path, monkeypatch):
    """Two updates an iteration, a reference, an evaluation before, in the midst and at the end."""
    config = small()
    config.stages.sft, config.stages.grpo = small_sft(), small_grpo()
    config.stages.grpo.update(iterations=5, minibatches=2, evaluate_every=2)
    config.stages.grpo.loss.kl_coef = 0.1
    config.evaluation.update(examples=4, batch=3)
    config.stages.evaluate = small_evaluate()
    config.stages.evaluate.update(examples=3, batch=2)
    config.pipeline = ("sft", "grpo", "evaluate")
    called, copied = [], []
    run, sample, copy = Program.__call__, Sampler.sample, Sampler.__init__
    monkeypatch.setattr(Program, "__call__", lambda s, *a: (called.append(s), run(s, *a))[1])
    monkeypatch.setattr(
        Sampler, "sample", lambda s, *a, **k: (copied.append(1), sample(s, *a, **k))[1]
    )
    monkeypatch.setattr(Sampler, "__init__", lambda s, *a: (copied.append(0), copy(s, *a))[1])
    with workshop():
        assert launch(config, tmp_path / "run") == 0
    plain = config.to_dict()
    sft, grpo, evaluate = (
        STAGES[plain["stages"][s]["kind"]].calls(plain, s) for s in config.pipeline
    )
    updates = [program for program in called if "loss" in program.facts]
    assert sft == {"update": 3} and grpo["update"] == 5 * 2 and len(updates) == 13
    logprobs = [program for program in called if "logprobs" in program.static]
    assert grpo["log-probs"] == len(logprobs) == 2 * 5
    # 5 of iterations; 4 evaluations of two batches; two policies of two batches
    rollouts = grpo["rollout"], grpo["running evaluation, rollout"], evaluate["rollout"]
    assert rollouts == (5, 4 * 2, 2 * 2) and copied.count(1) == sum(rollouts)
    copies = (
        grpo["decoding weights"], grpo["running evaluation, decoding weights"],
        evaluate["decoding weights"],
    )  # fmt: skip
    assert copies == (5, 4, 2) and copied.count(0) == sum(copies)


FULL = ("grpo_demo_gemma3_1b", "pinocchio_gemma3_1b", "thought_teacher_gemma2_2b",
        "sft_dpo_grpo_gemma2_2b", "rar_gemma2_2b:better", "distill_gemma3_1b",
        "thinking_in_tokens_gemma3_1b", "relay_gemma2_2b", "rlpr_gemma2_2b")  # fmt: skip


@pytest.mark.parametrize("system", FULL)
def test_every_program_has_its_number_of_calls(system):
    name, _, variant = system.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(variant).to_dict()
    for stage in config["pipeline"]:
        kind = STAGES[config["stages"][stage]["kind"]]
        policy = shapes_at_start(base_of(config), config["stages"][stage])
        calls = kind.calls(config, stage)
        for program in kind.build(config, stage, policy):
            assert calls[program] is None or calls[program] > 0, (stage, program)


def test_the_judges_calls():
    """1000 iterations of 16 completions, 16 prompts at a time; with four criteria each, 32 rows."""
    config = importlib.import_module("configs.rar_gemma2_2b").get_config("").to_dict()
    calls = STAGES["grpo"].calls(config, "grpo")
    assert calls["judged"] == 1000 and calls["log-probs"] == 2000
    config = importlib.import_module("configs.rar_gemma2_2b").get_config("better").to_dict()
    calls = STAGES["grpo"].calls(config, "grpo")
    assert calls["held_out_judged"] == 1000 * 4 * 32 // 16
    assert calls["judged"] == 1000 * 32 // 16  # all criteria at once
    config["judges"]["rubric"]["prompt"] = "criterion"  # of which each question has its own
    assert STAGES["grpo"].calls(config, "grpo")["judged"] is None


def test_meshes_of_devices_that_are_not_there():
    config = config_of(fsdp=2, tp=1)
    config["meshes"] = {"judge": {"fsdp": 2, "tp": 1, "first": 2}}
    others = jax.devices()[4:]
    with of_devices(others):
        assert devices_here() == others
        mesh = own_mesh(config)
        assert mesh and [*mesh.devices.flat] == others[:2]
        judge = mesh_of(config, "judge")
        assert judge and [*judge.devices.flat] == others[2:]
    assert devices_here() == jax.devices()


def said_of(config: dict, topology: str) -> list[str]:
    lines: list[str] = []
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("grpo.topologies.report.devices_of", lambda _: jax.devices())
        patch.setattr("grpo.topologies.report.Compiler", lambda *a: Compiler(*a, platform="cpu"))
        report(config, STAGES, topology, lines.append)
    return lines


def test_a_chip_without_a_clock():
    """Only floors, and that is said."""
    lines = said_of(config_of(fsdp=2, tp=1), "v6e:1x2")
    assert all("(compiler none known, " in line for line in lines if " s a call " in line)


def test_a_report():
    """By the CPU's compiler, which knows no cycles: floors are all there is."""
    lines = said_of(config_of(fsdp=2, tp=1), "v5e:1x2")
    assert lines[0].startswith(
        "v5e:1x2: estimates of a compiler, never timed; a chip has 15.75 GiB"
    )
    assert [line.split(": ")[1] for line in lines[1:7]] == [
        "update", "decoding weights", "rollout", "log-probs",
        "running evaluation, decoding weights", "running evaluation, rollout",
    ]  # fmt: skip
    update = lines[1]
    for words in (" of 15.75 GiB on each of 2 (", "weights ", "trained ", "optimizer ", "beside ",
                  "compiler 0.000, ", "bound by "):  # fmt: skip
        assert words in update
    assert " s an iteration, 3 of them " in lines[7]
    assert lines[8].startswith("fits: ") and lines[9].startswith("in all: ")
    assert lines[10].startswith("not counted: compiling; ")
    assert lines[-1].startswith("would help: ")


def command(*words: str, config: str = "configs/tiny.py") -> subprocess.CompletedProcess:
    line = [sys.executable, "launch.py", f"--config={config}", *words]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("words", "line"), [
    (("--check", "--topology=v5e:1x1"),
     "--topology=v5e:1x1: is read by --preflight, which is missing"),
    (("--preflight", "--topology=v5e:2x4"),
     "--topology=v5e:2x4: has 8 chips, mesh.fsdp * mesh.tp (and meshes) of the config take 1: name "
     "another slice, or set --config.mesh.fsdp or .tp"),
    (("--preflight", "--topology=tpu"),
     "--topology=tpu: expected one of v5e, v5p, v6e and chips by chips, such as v5e:2x4 or "
     "v5p:2x2x1"),
])  # fmt: skip
def test_errors_are_one_line(words, line):
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {line}\n")


NO_LIBTPU = importlib.util.find_spec("libtpu") is None


@pytest.mark.skipif(not NO_LIBTPU, reason="libtpu is installed: the other test")
def test_without_libtpu_the_fix_is_said():
    done = command("--preflight", "--topology=v5e:1x1")
    assert done.returncode == 2 and done.stderr.startswith(
        "error: --topology=v5e:1x1: needs the TPU compiler: pip install -e '.[tpu]' ("
    )


@pytest.mark.skipif(NO_LIBTPU, reason="needs libtpu, the compiler of TPUs: pip install -e '.[tpu]'")
def test_with_libtpu():
    """A small run for one chip, in less than a minute."""
    done = command("--preflight", "--topology=v5e:1x1", "--config.pipeline=('sft',)",
                   "--config.stages.sft.evaluate_every=0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\nfits: " in done.stdout and "compiler none" not in done.stdout
