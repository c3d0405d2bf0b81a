"""The first updates of a stage, and in how many ways they are to come out the same.

The pipeline is cut to the stage and what comes before it, and that to some updates; evaluations
are left out. Learning rates stay those of the whole stage. The stage begins in every variant from
the same bits (grpo/runs/borrow.py).

    base            one device, the config's own microbatches
    again           the same, with nothing kept of compiled programs         exactly equal
    microbatches    other cuts of a batch                                    equal up to rounding
    fsdp x tp       virtual devices of a CPU                                 equal up to rounding
    interrupted     stopped within an iteration's updates and killed within  exactly equal
                    the next one's, each time resumed

Where an iteration has one update there is nothing within it: that row, and the base that it is
compared with, then have epochs=2.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.runs.policies import trains

Config = Mapping[str, Any]
AMOUNTS = ("iterations", "steps")  # the field that says how long a stage trains
NEVER = 10**6


class Variant(NamedTuple):
    """One way to run the updates."""

    name: str
    config: dict[str, Any]
    beside: str | None  # the variant it is compared with
    exact: bool  # whether the docs promise the same bits
    stop_at: int | None = None  # after this update the process is asked to stop
    kill_at: int | None = None  # at this one it is killed
    keeps_programs: bool = True


def amount_of(stage: Config) -> str:
    """The field that says how long a stage trains."""
    return next(field for field in AMOUNTS if field in stage)


def updates_of(stage: Config) -> int:
    """The updates of an iteration."""
    return stage.get("epochs", 1) * stage.get("minibatches", 1)


def before(config: Config, name: str) -> tuple[str, ...]:
    """The stages that come before one, but for those that only measure."""
    pipeline, stages = config["pipeline"], config["stages"]
    earlier = pipeline[: pipeline.index(name)]
    return tuple(n for n in earlier if stages[n]["kind"] not in ("evaluate", "grade"))


def cut(config: Config, name: str, iterations: int, few: int) -> dict[str, Any]:
    """The config of a stage's first iterations, on one device, after few updates of the others."""
    found = copy.deepcopy(dict(config))
    kept = (*before(config, name), name)
    found |= {"pipeline": kept, "stages": {n: found["stages"][n] for n in kept}, "meshes": {}}
    models = (None, "base", *kept, *found["models"])
    found["judges"] = {n: one for n, one in found["judges"].items() if one["model"] in models}
    found["mesh"] |= {"fsdp": 1, "tp": 1}
    found["checkpoint"] |= {"keep_last": NEVER}
    for stage_name, stage in found["stages"].items():
        if not trains(stage):
            continue
        field = amount_of(stage)
        whole = stage[field] * updates_of(stage)
        stage["optimizer"]["schedule_updates"] = stage["optimizer"]["schedule_updates"] or whole
        stage[field] = min(stage[field], iterations if stage_name == name else few)
        stage["checkpoint_every"] = 1 if stage_name == name else NEVER
        if "evaluate_every" in stage:
            stage["evaluate_every"] = 0
    return found


def changed(config: Config, name: str, fields: Mapping[str, Any], mesh: Config) -> dict[str, Any]:
    """A copy of a config with other fields of a stage, and another mesh."""
    found = copy.deepcopy(dict(config))
    found["stages"][name] |= fields
    found["mesh"] |= mesh
    return found


def variants(
    config: Config, name: str, microbatches: Sequence[int], meshes: Sequence[tuple[int, int]]
) -> Iterator[Variant]:
    """All of them, of a config that is cut; each stands after the one it is compared with."""
    stage = config["stages"][name]
    yield Variant("base", dict(config), None, exact=True)
    yield Variant("again, compiled anew", dict(config), "base", exact=True, keeps_programs=False)
    for parts in microbatches:
        if parts != stage["microbatches"]:
            other = changed(config, name, {"microbatches": parts}, {})
            yield Variant(f"microbatches={parts}", other, "base", exact=False)
    for fsdp, tp in meshes:
        if (fsdp, tp) != (1, 1):
            other = changed(config, name, {}, {"fsdp": fsdp, "tp": tp})
            yield Variant(f"mesh {fsdp} x {tp}", other, "base", exact=False)
    beside, within = "base", dict(config)
    has_one = "epochs" in stage and updates_of(stage) == 1
    if has_one:
        beside, within = "base, epochs=2", changed(config, name, {"epochs": 2}, {})
    updates = updates_of(within["stages"][name])
    if stage[amount_of(stage)] * updates > updates + 1 - (updates == 1):
        if has_one:
            yield Variant(beside, within, None, exact=True)
        yield Variant("interrupted", within, beside, exact=True, stop_at=1, kill_at=updates + 1)
