"""Whether a run fits chips that are not there, how long it takes, and what would help.

    python launch.py --config=configs/NAME.py --preflight --topology=v5e:2x4

Every program that the stages build is compiled by libtpu, the compiler of TPUs, which needs none.
All of it are estimates, and none of them was ever timed: docs/preflight.md.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grpo.checks.devices import count_devices
from grpo.checks.problems import problems
from grpo.runs.meshes import of_devices
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.tools.preflight import living
from grpo.tools.shapes import amount, lasting
from grpo.topologies.advice import best, tried
from grpo.topologies.chips import Slice, devices_of, require_enough, slice_of
from grpo.topologies.hours import SAMPLING, Stage, Timed, not_counted, stage_of
from grpo.topologies.programs import Compiler, chips_of

Config = Mapping[str, Any]
Say = Callable[[str], None]


def report(config: Config, stages: Mapping[str, Any], topology: str, say: Say) -> None:
    """Says it line by line, as the programs are compiled: that takes minutes."""
    chosen = slice_of(topology)
    require_enough(chosen, count_devices(config))
    devices = devices_of(chosen)
    compiler = Compiler(chosen.chip, devices)
    say(f"{topology}: estimates of a compiler, never timed; a chip has {about_chip(chosen)}")
    with of_devices(devices):
        found = []
        for name in config["pipeline"]:
            stage = looked_at(config, stages, name, compiler)
            for one in stage.programs:
                say(f"{name}: {about(one)}")
            say(f"{name}: {summed(stage)}")
            found.append(stage)
        for line in whole(config, found):
            say(line)
        say(f"would help: {advice(config, stages, found, compiler)}")


def looked_at(config: Config, stages: Mapping[str, Any], name: str, compiler: Compiler) -> Stage:
    """A stage, every program of it compiled."""
    kind = stages[config["stages"][name]["kind"]]
    policy = shapes_at_start(base_of(config), config["stages"][name])
    programs = kind.build(config, name, policy)
    lives, own = living(programs, policy), chips_of(policy.params)
    looked, apart = {}, set()
    for label, program in programs.items():
        # What reads completions runs while the copy to decode with is still there.
        reads = label in SAMPLING[2:] or label in config["stages"][name].get("rewards", ())
        copy = programs["rollout"].cases[-1][1] if reads else None
        looked[label] = compiler.look(program, policy, (lives, copy))
        if not own & chips_of(program.cases[-1]):
            apart.add(label)
    return stage_of(config, name, kind.calls(config, name), looked, frozenset(apart))


def about_chip(chosen: Slice) -> str:
    """The peaks of a chip."""
    chip = chosen.chip
    return (
        f"{chip.memory / 2**30:.2f} GiB, {chip.flops / 1e12:.0f} TFLOP/s, "
        f"{chip.bandwidth / 1e9:.0f} GB/s, {chip.ring / 1e9:.0f} GB/s to its neighbours"
    )


def about(one: Timed) -> str:
    """A program: bytes of a chip, seconds, collectives, what bounds it."""
    found, memory = one.found, one.found.memory
    held = f"{one.name}: {amount(found.held)} of {amount(int(memory))} on each of {found.chips}"
    if found.bounds is None:
        return f"{held}: does not fit, {amount(int(found.held - memory))} too much"
    kinds = dict(found.kinds)
    cache = kinds.pop("cache", 0)
    parts = [f"{kind} {amount(size)}" for kind, size in kinds.items() if size]
    inside = f" (cache {amount(cache)})" if cache else ""
    parts.append(f"temporaries {amount(found.compiled.temporaries)}{inside}")
    parts.append(f"beside {amount(found.beside)}")
    bounds = found.bounds
    compiler = "none known" if bounds.compiler is None else f"{bounds.compiler:.3f}"
    moved = ", ".join(
        f"{runs} {key.kind}{f' of {key.devices}' * bool(key.devices)}"
        f"{' beside' * key.is_beside} {amount(size)}"
        for key, (runs, size) in found.compiled.collectives.items()
    )
    too_much = "" if found.fits else "; does not fit"
    return (
        f"{held} ({', '.join(parts)}){too_much}; {bounds.seconds:.3f} s a call (compiler "
        f"{compiler}, products {bounds.products:.3f}, memory {bounds.memory:.3f}, interconnect "
        f"{bounds.interconnect:.3f}); collectives: {moved or 'none'}; bound by {bounds.limit}"
    )


def summed(stage: Stage) -> str:
    """A stage: seconds of an iteration, hours, and who takes them."""
    shares = ", ".join(
        f"{one.name} {lasting(one.seconds)}"
        for one in sorted(stage.programs, key=lambda one: -one.seconds)
        if one.seconds
    )
    hidden = f"; {lasting(stage.hidden)} of it at once" if stage.hidden else ""
    each = ""
    if stage.iterations:
        each = f"{stage.seconds / stage.iterations:.2f} s an iteration, {stage.iterations} of them "
    return f"{each}{lasting(stage.seconds)} ({shares or 'nothing is counted'}{hidden})"


def whole(config: Config, found: list[Stage]) -> Iterator[str]:
    """The run: whether it fits, its hours, what bounds it, what is not in them."""
    most, stage = max(
        ((one, s) for s in found for one in s.programs), key=lambda p: p[0].found.held
    )
    wrong = [stage.name for stage in found if not stage.fits]
    it = f"{amount(most.found.held)} of {amount(int(most.found.memory))}, {stage.name}: {most.name}"
    yield f"does not fit: {', '.join(wrong)}; most: {it}" if wrong else f"fits: {it}"
    longest = longest_of(found)
    one = longest.heaviest
    limit = one.found.bounds.limit if one.found.bounds and longest.fits else "memory"
    seconds = lasting(sum(stage.seconds for stage in found))
    yield f"in all: {seconds} by estimate; most for {longest.name}: {one.name}, bound by {limit}"
    yield f"not counted: {'; '.join(not_counted(config, found))}"
    yield "counted to the end: every completion has max_new_tokens"


def longest_of(found: list[Stage]) -> Stage:
    """The stage to look at: one that does not fit, or the one that takes longest."""
    return max(found, key=lambda stage: (not stage.fits, stage.seconds))


def advice(
    config: Config, stages: Mapping[str, Any], found: list[Stage], compiler: Compiler
) -> str:
    """The change that helps the longest stage most."""
    stage = longest_of(found)
    others = []
    for change, other in tried(config, stage, lambda other: not problems(other, stages)):
        others.append((change, looked_at(other, stages, stage.name, compiler)))
    return best(stage, others)
