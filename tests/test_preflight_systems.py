"""What a preflight reckons of systems of several models, and that the largest siblings fit."""

import importlib
from typing import Any

import pytest

from grpo.pipeline import STAGES
from grpo.runs.shapes import base_of
from grpo.tools.preflight import cache_of, preflight
from grpo.tools.shapes import device_bytes, leaves_beside
from grpo.training.program import Shape

GIB = 2**30
CHIP = 15.75  # GiB of a TPU v5e


def config_of(name: str, variant: str = "") -> dict[str, Any]:
    return importlib.import_module(f"configs.{name}").get_config(variant).to_dict()


def lines_of(name: str, stage: str, variant: str = "") -> list[str]:
    return preflight({**config_of(name, variant), "pipeline": (stage,)}, STAGES)


def gib_of(lines: list[str], start: str, before: str) -> float:
    """The amount that stands after some words of the one line that begins so."""
    (line,) = [line for line in lines if line.startswith(start)]
    number, unit = line.partition(before)[2].split()[:2]
    return float(number) / {"GiB": 1, "MiB": 1024}[unit.strip(",;")]


def test_a_teacher_lies_beside_its_student():
    lines = lines_of("distill_gemma3_1b", "distill")
    table, norms = 262_208 * 2560, 34 * (4 * 2560 + 2 * 256) + 2560
    layer = 2560 * 256 * (8 + 4 + 4 + 8) + 3 * 2560 * 10_240
    teacher = 2 * ((table + 34 * layer) / 4 + norms) / GIB
    assert gib_of(lines, "distill: lessons", "holds ") == pytest.approx(teacher, abs=0.005)
    held = sum(
        gib_of(lines, "distill: trains", before)
        for before in ("a device holds ", "starts with, ", "are trained, ")
    )
    evaluated = "distill: running evaluation, rollout"
    copied, cache = (gib_of(lines, evaluated, x) for x in ("a device holds ", "cache of "))
    total = gib_of(lines, "reckoned in all: ", "all: ")
    assert total == pytest.approx(held + teacher + copied + cache, abs=0.02)
    assert lines[-1].endswith("for distill")


def test_the_heads_of_a_cache_are_cut():
    """26 layers, 8 rows of 256 + 512 tokens, keys and values, 4 heads of 256 in bfloat16."""
    whole = 26 * 8 * 768 * 2 * 4 * 256 * 2
    config = config_of("grpo_gemma2_2b")
    for fsdp, tp, parts in ((1, 4, 4), (2, 2, 4), (1, 1, 1), (1, 8, 1)):
        config["mesh"] = {"fsdp": fsdp, "tp": tp}
        found = device_bytes(cache_of(base_of(config), 8, 768).layers)
        assert found == whole // parts


def test_an_update_adds_what_it_saves_and_its_gradient():
    """All parameters of Gemma 2 2B over eight devices, with float32 moments and gradient."""
    lines = lines_of("relay_gemma2_2b", "first")
    saved = gib_of(lines, "first: update", "at most ")
    each = 2_614_341_888 / 8 / GIB
    total = gib_of(lines, "reckoned in all: ", "all: ")
    assert total == pytest.approx((2 + 2 + 8 + 4) * each + saved, rel=0.01)


@pytest.mark.parametrize(
    ("name", "stage"), [("relay_gemma2_2b", "first"), ("sft_dpo_grpo_gemma2_2b", "pairs")]
)
def test_the_largest_siblings_fit(name, stage):
    """With as much again for what is not reckoned."""
    lines = lines_of(name, stage, "better")
    assert gib_of(lines, "reckoned in all: ", "all: ") < CHIP / 2


def test_arrays_are_counted_once():
    a, b, c = (Shape((n,), "float32") for n in (1, 2, 3))
    assert leaves_beside({"x": a}, (a, b), [b, {"y": c}], None) == [b, c]
