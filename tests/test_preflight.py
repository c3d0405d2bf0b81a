"""The demo's programs at their full size on eight virtual devices, without an array of it."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import grpo_demo_gemma3_1b as demo
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.rollout.generate import sampling_programs
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.stages import grpo as stage_of_grpo
from grpo.tools.preflight import needed, preflight, trained
from grpo.tools.shapes import amount, device_bytes
from grpo.training.program import Program
from models.sharding import path_name
from tests.tiny_run import policy_of

ROOT = pathlib.Path(__file__).parent.parent
ADAPTER = (
    26
    * 64
    * (  # layers · rank · (inputs + outputs) of each projection
        (1152 + 4 * 256) * 2 + (1152 + 256) * 2 + (1152 + 6912) * 3
    )
)
PARAMS = 999_885_952


def config_on(fsdp: int, tp: int, variant: str = "") -> dict:
    config = demo.get_config(variant)
    config.mesh.update(fsdp=fsdp, tp=tp)
    return config.to_dict()


def line_of(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


@pytest.mark.parametrize("mesh", [(1, 4), (8, 1)])
def test_the_demo_at_its_full_size(mesh, monkeypatch):
    """Every program lowers; the compiler gives the update the bytes that were reckoned."""
    config, programs = config_on(*mesh), []
    assert problems(config, STAGES) == []
    lower = Program.lower

    def kept(program):
        lowered = lower(program)
        if "loss" in program.facts:
            programs.append((program.cases[0], lowered[0]))
        return lowered

    monkeypatch.setattr(Program, "lower", kept)
    lines = preflight(config, STAGES)
    assert line_of(lines, "model: 999,885,952 parameters, 1.86 GiB")
    assert (
        "an adapter, 52,183,040 parameters" in line_of(lines, "grpo: trains")
        and ADAPTER == 52_183_040
    )
    for line in (
        "grpo: update: 16 rows of 768 tokens in 1 parts",
        "grpo: rollout: 4 prompts of 256 tokens, 4 x 512 new ones",
        "grpo: log-probs: 16 rows of 768 tokens in 1 parts",
        "greedy: rollout: 100 prompts of 256 tokens, 1 x 768 new ones",
        "standard: rollout of samples: 25 prompts of 256 tokens, 4 x 768 new ones",
        "liberal: rollout of samples: 25 prompts of 256 tokens, 4 x 768 new ones",
    ):
        assert line_of(lines, line)
    # What cannot be cut is said: the one key/value head, and 100 rows over eight devices.
    whole = [line for line in lines if "holds it whole" in line]
    assert len(whole) == {(1, 4): 2, (8, 1): 3}[mesh]

    (((state, frozen, batch), lowered),) = programs
    compiled = lowered.compile()
    reckoned = sum(map(device_bytes, (state, frozen, batch)))
    assert compiled.memory_analysis().argument_size_in_bytes == pytest.approx(reckoned, rel=1e-3)
    # The compiler has them where the table does: every large one in as many parts as there can be.
    places = jax.tree.leaves(compiled.input_shardings[0][:2])
    leaves = jax.tree_util.tree_leaves_with_path((state, frozen))
    devices = mesh[0] * mesh[1]
    large = 0
    for (path, x), place in zip(leaves, places, strict=True):
        parts = x.size / np.prod(place.shard_shape(x.shape))
        name = path_name(path)
        is_small = x.ndim < 2 or name.endswith("scale")
        # Along tp neither one key/value head is cut, nor what lies along the width or the rank.
        is_whole = mesh[1] > 1 and name.endswith(("k/w", "v/w", "k/b", "v/b", "q/a", "k/a", "v/a",
                                                  "gate/a", "up/a", "o/b", "down/b"))  # fmt: skip
        is_whole |= mesh[0] > 1 and name.endswith(("q/b", "k/b", "v/b", "gate/b", "up/b", "o/a",
                                                   "down/a"))  # fmt: skip
        assert parts == (1 if is_small or is_whole else devices), name
        large += parts > 1
    assert large >= 6


@pytest.mark.parametrize("mesh", [(1, 4), (8, 1)])
def test_only_the_adapter_has_moments(mesh):
    config = config_on(*mesh)
    stage = config["stages"]["grpo"]
    start = shapes_at_start(base_of(config), stage)
    program = stage_of_grpo.build(config, "grpo", start)["update"]
    state = program.cases[0][0]
    names = {path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    assert not any(name.endswith(("/w", "table", "scale")) for name in names)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * ADAPTER
    assert {str(x.dtype) for x in moments} == {"float32"}
    assert {str(x.dtype) for x in jax.tree.leaves(start.params)} == {"bfloat16"}
    assert sum(x.size for x in jax.tree.leaves(start.params)) == PARAMS
    # Where the parameters are, so are their moments.
    line = trained(program, start)
    assert f"{amount(device_bytes(start.adapter))} that are trained" in line


def test_the_repositorys_version():
    lines = preflight(config_on(1, 4, "repo"), STAGES)
    assert line_of(lines, "model: 999,885,952 parameters, 3.72 GiB")
    assert line_of(lines, "grpo: update: 2 rows of 1024 tokens in 1 parts")
    assert line_of(lines, "greedy: rollout: 64 prompts of 256 tokens, 1 x 768 new ones")
    (line,) = problems(config_on(8, 1, "repo"), STAGES)
    assert line == (
        "stages.grpo.microbatches=1: 2 rows (prompts * group / minibatches) do not divide by it "
        "times mesh.fsdp=8"
    )


def test_what_is_saved_for_the_backward_pass():
    """Recomputing layers keeps less; so do smaller parts."""

    def kept(remat: str, parts: int) -> float:
        config = config_on(1, 1)
        config["model"]["remat"] = remat
        config["stages"]["grpo"]["microbatches"] = parts
        config["pipeline"] = ("grpo",)
        line = line_of(preflight(config, STAGES), "grpo: update")
        return float(line.split("at most ")[1].split(" GiB")[0])

    tokens = 4 * (256 + 4 * 512)  # a prompt stands once for its four completions
    residual = 26 * tokens * 1152 * 2 / 2**30  # what goes from layer to layer
    rotations = 4 * tokens * 128 * 4 / 2**30  # cosines and sines of both kinds of layers
    full = kept("full", 1)
    assert residual < full < 2 * residual + rotations
    assert kept("none", 1) > 4 * full and kept("full", 4) < full / 2


def test_from_the_command_line_on_any_machine():
    """Without eight devices, weights or data."""
    command = [sys.executable, "launch.py", "--config=configs/grpo_demo_gemma3_1b.py",
               "--preflight", "--config.mesh.fsdp=8", "--config.mesh.tp=1",
               "--config.pipeline=('grpo',)"]  # fmt: skip
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model: 999,885,952 parameters, 1.86 GiB; on a mesh of 8 x 1")
    command += ["--config.mesh.fsdp=1", "--config.mesh.tp=3", "--config.model.path=None"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "does not divide the 4 heads" in done.stderr


def test_the_cache_is_that_of_the_seats():
    """And of the prompts, from which who waits begins."""

    def asked(**fields):
        policy = dataclasses.replace(policy_of(), **fields)
        programs = sampling_programs(
            policy, (8,), prompts=6, group=4, max_new_tokens=16,
            sampling={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        )  # fmt: skip
        said = needed(programs["rollout"], policy)
        return said.line, said.adds - device_bytes(programs["rollout"].cases[0][1])

    def bytes_of(rows, capacity):
        config = policy_of().config
        slots = [
            min(config.window, capacity) if kind == "local" else capacity for kind in config.kinds
        ]
        numbers = sum(slots) * 2 * config.num_kv_heads * config.head_dim
        return rows * (numbers + 1) * 4  # and the row's length

    line, cache = asked()
    assert "6 prompts of 8 tokens, 4 x 16 new ones; " in line and cache == bytes_of(24, 24)
    line, cache = asked(seats=5)
    assert "6 prompts of 8 tokens, 4 x 16 new ones through 5 seats; " in line
    assert cache == bytes_of(5, 24) + bytes_of(6, 8)
