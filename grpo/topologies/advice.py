"""The one change of a config that would help most, by estimate.

What bounds the program that takes most of a run, or does not fit, says which changes are worth
trying; each of them is compiled as the run would be, and the best is said.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from grpo.tools.shapes import lasting
from grpo.topologies.hours import Stage

Config = Mapping[str, Any]
MOST = 2  # changes that are tried: each compiles a stage again
REMAT = ("full", "dots", "none")  # from least memory to least work
TRAINS = ("update",)


class Change(NamedTuple):
    """Fields of a config that take other values."""

    fields: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join(f"--config.{path}={value}" for path, value in self.fields.items())

    def on(self, config: Config) -> dict[str, Any]:
        """The config with it."""
        found = dict(config)
        for path, value in self.fields.items():
            section, *below = path.split(".")
            found[section] = with_value(found[section], below, value)
        return found


def with_value(section: Config, path: list[str], value: Any) -> dict[str, Any]:
    """A section with another value somewhere in it."""
    first, *below = path
    return {**section, first: with_value(section[first], below, value) if below else value}


def changes(config: Config, stage: Stage) -> Iterator[Change]:
    """What is worth trying for a stage, the most promising first."""
    if stage.heaviest.found.fits:
        yield from faster(config, stage)
    else:
        yield from smaller(config, stage)


def smaller(config: Config, stage: Stage) -> Iterator[Change]:
    """What leaves more memory to the program that takes most."""
    name, fields = stage.heaviest.name, config["stages"][stage.name]
    where, _, more_tp = f"stages.{stage.name}", *meshes(config)
    if name in TRAINS:
        yield Change({f"{where}.microbatches": 2 * fields["microbatches"]})
        yield Change({"model.remat": "full"})
    elif name.startswith("running evaluation"):
        yield Change({"evaluation.batch": max(1, config["evaluation"]["batch"] // 2)})
    elif "batch" in fields:
        yield Change({f"{where}.batch": max(1, fields["batch"] // 2)})
    elif "group" in fields:
        yield Change({"model.seats": max(1, fields["prompts"] * fields["group"] // 2)})
    yield Change({"model.frozen_weights": "split"})
    yield more_tp


def faster(config: Config, stage: Stage) -> Iterator[Change]:
    """What takes away from the bound of the program that takes longest."""
    name, fields = stage.heaviest.name, config["stages"][stage.name]
    bounds, (more_fsdp, more_tp) = stage.heaviest.found.bounds, meshes(config)
    limit, whole = bounds and bounds.limit, Change({"model.frozen_weights": "whole"})
    if limit == "interconnect" and name in TRAINS:
        yield whole
    elif limit == "bandwidth":
        yield more_tp
    elif name in TRAINS:
        remat = REMAT.index(config["model"]["remat"])
        yield Change({"model.remat": REMAT[min(remat + 1, len(REMAT) - 1)]})
        parts = max(1, fields["microbatches"] // 2)
        yield Change({f"stages.{stage.name}.microbatches": parts})
    yield more_fsdp
    if config["mesh"]["fsdp"] > 1:
        yield whole
    yield more_tp


def meshes(config: Config) -> tuple[Change, Change]:
    """As many devices, more of them along fsdp, or along tp."""
    fsdp, tp = config["mesh"]["fsdp"], config["mesh"]["tp"]
    more_fsdp = Change({"mesh.fsdp": fsdp * 2, "mesh.tp": tp // 2})
    return more_fsdp, Change({"mesh.fsdp": fsdp // 2, "mesh.tp": tp * 2})


def tried(
    config: Config, stage: Stage, is_fine: Callable[[Config], bool]
) -> list[tuple[Change, dict[str, Any]]]:
    """The changes that are to be compiled, each once: those that make another, valid config."""
    found: list[tuple[Change, dict[str, Any]]] = []
    for change in changes(config, stage):
        other = change.on(config)
        known = [config, *(other for _, other in found)]
        if len(found) < MOST and other not in known and is_fine(other):
            found.append((change, other))
    return found


def best(stage: Stage, others: list[tuple[Change, Stage]]) -> str:
    """What the changes come to, in one line."""
    fitting = [(change, one) for change, one in others if one.fits]
    if not fitting:
        names = "; ".join(str(change) for change, _ in others) or "none is known"
        return f"no change was found that fits or helps; compiled with: {names}"
    change, one = min(fitting, key=lambda pair: pair[1].seconds)
    if stage.fits and one.seconds >= stage.seconds:
        names = "; ".join(str(change) for change, _ in others)
        return f"nothing that was compiled is faster; tried: {names}"
    before = lasting(stage.seconds) if stage.fits else "what does not fit"
    return f"{change}: {stage.name} takes {lasting(one.seconds)} in place of {before}"
