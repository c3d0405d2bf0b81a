"""What is read out of compiled programs, and what times and bytes are made of it: by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from grpo.rollout.generate import sampling_programs
from grpo.tools.shapes import device_bytes, lasting
from grpo.topologies import chips, hlo
from grpo.topologies.bounds import Bounds, bounds_of
from grpo.topologies.chips import CHIPS, Chip, TopologyError, require_enough, slice_of
from grpo.topologies.hlo import Moved
from grpo.topologies.products import product_flops
from grpo.topologies.programs import (
    ADAPTER,
    CACHE,
    MOMENTS,
    ROWS,
    TRAINED,
    WEIGHTS,
    Compiler,
    compile_it,
    kinds_of,
    needed_by,
    trips_of,
)
from grpo.training.program import Program, Shape
from grpo.training.train_step import TrainState
from tests.tiny_run import policy_of

# A loop of 5 trips, one that says no trips, a collective beside others, one in a fusion.
TEXT = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  ROOT %scattered = f32[2]{0} reduce-scatter(%p), replica_groups=[2,4]<=[8], to_apply=%sum
}

%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[4]{0} get-tuple-element(%s), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = (f32[4]{0}, bf16[6]{0}) all-reduce(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%sum
  %z = f32[4]{0} fusion(%y), kind=kLoop, calls=%other, backend_config={"estimated_cycles":"100"}
  ROOT %out = (s32[], f32[4]) tuple(%next, %z)
}

%until (s: (s32[], f32[4])) -> pred[] {
  %s = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %ten), direction=LT
}

%whether (s: (s32[], f32[4])) -> pred[] {
  %s = (s32[], f32[4]) parameter(0)
  ROOT %any = pred[] custom-call(%s)
}

%short (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[], f32[4]) parameter(0)
  ROOT %t = (s32[], f32[4]) fusion(%s), calls=%other, backend_config={"estimated_cycles":"1"}
}

%long (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[], f32[4]) parameter(0)
  ROOT %t = (s32[], f32[4]) fusion(%s), calls=%other, backend_config={"estimated_cycles":"30"}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %w1 = (s32[], f32[4]) while(%a), condition=%until, body=%body
  %w2 = (s32[], f32[4]) while(%w1), condition=%whether, body=%short
  %w3 = (s32[], f32[4]) while(%w2), condition=%whether, body=%long
  %g = (f32[4]{0}, f32[32]{0}) all-gather-start(%a), replica_groups={{0,1},{2,3}}, dimensions={0}
  %f = f32[2]{0} fusion(%a), kind=kCustom, calls=%fused
  ROOT %r = f32[4]{0} copy(%a)
}
"""


def test_the_cycles_of_loops():
    """5 · 100, and the loops without a number: once each; or the longest as often as is said."""
    module = hlo.parse(TEXT)
    assert hlo.cycles(module) == 500 + 1 + 30
    assert hlo.cycles(module, unknown=7) == 500 + 1 + 7 * 30


def test_what_collectives_move():
    """All results of one that waits, the largest of one that does not; in loops and fusions too."""
    assert hlo.collectives(hlo.parse(TEXT)) == {
        Moved("all-reduce", 4, False): (5, 5 * (4 * 4 + 6 * 2)),
        Moved("all-gather", 2, True): (1, 32 * 4),
        Moved("reduce-scatter", 4, False): (1, 2 * 4),
    }


def test_the_branch_that_runs():
    """Of two the first; of more the longest."""
    text = TEXT.replace(
        "  ROOT %r = f32[4]{0} copy(%a)",
        "  %two = f32[4]{0} conditional(%a, %a, %a), branch_computations={%short, %long}\n"
        "  %more = f32[4]{0} conditional(%a, %a, %a), branch_computations={%short, %long, %short}\n"
        "  ROOT %r = f32[4]{0} copy(%a)",
    )
    assert hlo.cycles(hlo.parse(text)) == 531 + 1 + 30


def traced(f, *shapes):
    return jax.jit(f).trace(*(jnp.zeros(shape) for shape in shapes))


def test_products_are_counted_as_often_as_they_run():
    def product(a, b):
        return a @ b

    one = 2 * 3 * 5 * 7
    assert product_flops(traced(product, (3, 5), (5, 7))) == one

    def often(a, b):
        return jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((3, 7)), length=4)[0]

    assert product_flops(traced(often, (3, 5), (5, 7))) == 4 * one

    def while_less(a, b):
        return jax.lax.while_loop(lambda c: c.sum() < 9.0, lambda c: c + a @ b, jnp.ones((3, 7)))

    assert product_flops(traced(while_less, (3, 5), (5, 7)), 6) == 6 * one

    def either(a, b):
        return jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: a @ b + a @ b)

    assert product_flops(traced(either, (3, 5), (5, 7))) == 2 * one

    def again(a, b):
        return jnp.sum(jax.checkpoint(lambda a, b: jnp.sin(product(a, b)))(a, b) ** 2)

    # Forward, forward again on the way back, and to each of both sides.
    assert product_flops(traced(jax.grad(again, argnums=(0, 1)), (3, 5), (5, 7))) == 4 * one

    batched = functools.partial(jnp.einsum, "bij,bjk->bik")
    assert product_flops(traced(batched, (11, 3, 5), (11, 5, 7))) == 11 * one


SLOW_CHIP = Chip(flops=100.0, bandwidth=10.0, memory=1000.0, ring=4.0, clock=50.0, host=(2, 4, 1))


def test_bounds_by_hand():
    """600 FLOP of three chips, 40 bytes to read, 150 cycles, and what goes around a ring."""
    found = bounds_of(
        SLOW_CHIP, 3, cycles=150, flops=600, read=40,
        collectives={
            Moved("all-gather", 4, True): (2, 16),  # 12 bytes leave
            Moved("all-reduce", 2, False): (1, 8),  # 8
            Moved("reduce-scatter", 4, False): (1, 4),  # 12
            Moved("collective-permute", 0, False): (1, 2),  # 2, by one link of two
        },
    )  # fmt: skip
    assert found == Bounds(compiler=3.0, products=2.0, memory=4.0, beside=3.0, alone=6.0)
    assert found.seconds == 4.0 + 6.0 and found.interconnect == 9.0
    assert found.limit == "interconnect"


@pytest.mark.parametrize(("bounds", "seconds", "limit"), [
    (Bounds(1.5, 1.0, 0.5, 0.0, 0.0), 1.5, "compute"),
    (Bounds(1.5, 0.5, 1.0, 0.0, 0.0), 1.5, "bandwidth"),
    (Bounds(2.5, 0.5, 1.0, 0.0, 0.0), 2.5, "compute"),  # far above both floors
    (Bounds(None, 0.5, 1.0, 0.0, 0.0), 1.0, "bandwidth"),
    (Bounds(1.0, 0.5, 1.0, 1.4, 0.0), 1.4, "interconnect"),
    (Bounds(1.0, 0.5, 1.0, 0.0, 0.6), 1.6, "bandwidth"),
])  # fmt: skip
def test_what_bounds_a_program(bounds, seconds, limit):
    assert (bounds.seconds, bounds.limit) == (seconds, limit)


def test_a_group_that_cannot_be_seen_is_all_chips():
    collectives = {Moved("all-gather", 0, False): (1, 16)}
    found = bounds_of(SLOW_CHIP, 8, cycles=0, flops=0, read=0, collectives=collectives)
    assert found.alone == 14 / 4


def test_the_peaks_are_the_published_ones():
    """https://cloud.google.com/tpu/docs/v5e and its neighbours; clocks follow from the units."""
    assert {name: (c.flops, c.bandwidth, c.ring) for name, c in CHIPS.items()} == {
        "v5e": (197e12, 819e9, 100e9),
        "v5p": (459e12, 2765e9, 200e9),
        "v6e": (918e12, 1638e9, 200e9),
    }
    assert CHIPS["v5e"].clock == pytest.approx(1.5e9, rel=0.01)
    assert CHIPS["v5p"].clock == pytest.approx(1.75e9, rel=0.01)
    assert CHIPS["v6e"].clock is None


@pytest.mark.parametrize(("name", "line"), [
    ("v5e", "--topology=v5e: expected one of v5e, v5p, v6e and chips by chips, "
            "such as v5e:2x4 or v5p:2x2x1"),
    ("v4:2x2x1", "--topology=v4:2x2x1: expected one of v5e, v5p, v6e and chips by chips, "
                 "such as v5e:2x4 or v5p:2x2x1"),
    ("v5e:0x4", "--topology=v5e:0x4: has no chips; such as v5e:2x4 has eight"),
])  # fmt: skip
def test_a_slice_that_there_cannot_be(name, line):
    with pytest.raises(TopologyError) as error:
        slice_of(name)
    assert str(error.value) == line


def test_a_slice_of_another_size():
    chosen = slice_of("v5p:2x2x2")
    assert chosen.count == 8
    require_enough(chosen, 8)
    with pytest.raises(TopologyError) as error:
        require_enough(chosen, 4)
    assert str(error.value) == (
        "--topology=v5p:2x2x2: has 8 chips, mesh.fsdp * mesh.tp (and meshes) of the config take 4: "
        "name another slice, or set --config.mesh.fsdp or .tp"
    )


@pytest.mark.parametrize(("reason", "line"), [
    ("JAX TPU support not installed; cannot generate TPU topology.",
     "--topology=v5e:2x4: needs the TPU compiler: pip install -e '.[tpu]' (JAX TPU support not "
     "installed; cannot generate TPU topology.)"),
    ("INVALID_ARGUMENT: not\ndivisible", "--topology=v5e:2x4: no such slice: INVALID_ARGUMENT: not "
                                         "divisible"),
])  # fmt: skip
def test_without_the_compiler(reason, line, monkeypatch):
    def fails(**_):
        raise RuntimeError(reason)

    monkeypatch.setattr(topologies, "get_topology_desc", fails)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # of the cache that all tests share
    monkeypatch.setattr(chips, "ALONE", {})
    with pytest.raises(TopologyError) as error:
        chips.devices_of(slice_of("v5e:2x4"))
    assert str(error.value) == line


def test_one_host_where_there_is_no_more(monkeypatch):
    """By default a slice of eight would be two hosts."""
    asked = []

    def seen(**words):
        asked.append((words["topology_name"], words["chips_per_host_bounds"]))
        return topologies.TopologyDescription([])

    monkeypatch.setattr(topologies, "get_topology_desc", seen)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(chips, "ALONE", {})
    for name in ("v5e:2x4", "v5e:1x1", "v5e:4x4", "v5p:2x2x2"):
        chips.devices_of(slice_of(name))
    assert asked == [
        ("v5e:2x4", (2, 4, 1)), ("v5e:1x1", (1, 1, 1)), ("v5e:4x4", (2, 4, 1)),
        ("v5p:2x2x2", (2, 2, 1)),
    ]  # fmt: skip


def shape(*sizes, dtype="float32"):
    return Shape(sizes, dtype)


def test_the_kinds_of_arguments():
    layers = {"mlp": {"gate": {"w": shape(2, 8, 4, dtype="bfloat16")}}}
    factors = {"mlp": {"gate": {"a": shape(2, 8, 3), "b": shape(2, 3, 4)}}}
    params, adapter = {"layers": layers, "embedder": {"table": shape(5, 8)}}, {"layers": factors}
    state = TrainState(jnp.int32(0), jnp.int32(0), adapter, {"nu": adapter})
    rows = shape(6, 7, dtype="int32")
    sizes = {"weights": 2 * 64 + 4 * 40, "adapter": 4 * (48 + 24), "rows": 4 * 42}
    assert kinds_of((state, params, rows)) == {
        ROWS: sizes["rows"], TRAINED: sizes["adapter"], MOMENTS: sizes["adapter"],
        WEIGHTS: sizes["weights"],
    }  # fmt: skip
    assert kinds_of(({"params": params, "lora": adapter}, rows, 1.0)) == {
        WEIGHTS: sizes["weights"], ADAPTER: sizes["adapter"], ROWS: sizes["rows"],
    }  # fmt: skip


def rollout_of(policy, **fields) -> Program:
    return sampling_programs(
        policy, (8, 16), prompts=6, group=4, max_new_tokens=10,
        sampling={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}, **fields,
    )["rollout"]  # fmt: skip


def test_a_rollout_on_one_chip():
    """By the CPU's compiler: its largest prompts, ten steps that read weights and cache."""
    policy = policy_of()
    program = rollout_of(policy)
    found = Compiler(SLOW_CHIP, jax.devices(), "cpu").look(program, policy, (policy.params, None))
    assert trips_of(program) == 10 and found.chips == 1
    weights = device_bytes(program.cases[-1][1])
    config = policy.config

    def cache(rows: int, tokens: int) -> int:
        slots = [min(config.window, tokens) if k == "local" else tokens for k in config.kinds]
        return rows * (sum(slots) * 2 * config.num_kv_heads * config.head_dim + 1) * 4

    prompts, written = cache(6, 16), cache(24, 10)
    assert found.kinds[WEIGHTS] == weights and found.kinds[CACHE] == prompts + written
    assert found.bounds
    assert found.bounds.memory == 10 * (weights + prompts + written // 2) / 10.0
    it = found.compiled
    assert found.beside == device_bytes(policy.params)
    assert found.held == it.arguments + it.results + it.temporaries + found.beside
    assert it.arguments == pytest.approx(weights + found.kinds[ROWS], rel=0.02)


def test_seats_are_decoded_in_turns():
    """24 completions through 5 seats: at most five times ten steps."""
    assert trips_of(rollout_of(policy_of(seats=5))) == 50


def test_what_is_alike_is_compiled_once(monkeypatch):
    compiled = []

    def counted(lowered, unknown):
        compiled.append(lowered)
        return compile_it(lowered, unknown)

    monkeypatch.setattr("grpo.topologies.programs.compile_it", counted)
    compiler = Compiler(SLOW_CHIP, jax.devices(), "cpu")
    double = jax.jit(lambda x: 2 * x)
    for size in (3, 3, 4):
        program = Program(double, ((shape(size),),))
        compiler.look(program, policy_of(), ())
    assert len(compiled) == 2


class Refused:
    """A lowered program that needs too much."""

    def __init__(self, line: str):
        self.line = line

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.line)


def test_what_does_not_fit_is_an_answer():
    line = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 18.50G of 15.75G hbm. Exceeded hbm capacity by 2.75G."
    )
    found = compile_it(Refused(line), 1)
    assert found.refused == line[:200] and found.needs == int(18.5 * 2**30)
    other = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (1.00T) exceeds"
    assert needed_by(other) == 2**40
    assert needed_by("RESOURCE_EXHAUSTED: no number") == 0
    with pytest.raises(jax.errors.JaxRuntimeError):
        compile_it(Refused("INTERNAL: something else"), 1)


def test_seconds_for_a_reader():
    assert [lasting(x) for x in (0.5, 89.0, 90.0, 1799.0, 1800.0)] == [
        "0.50 s", "89.00 s", "1.5 min", "30.0 min", "0.50 h",
    ]  # fmt: skip
