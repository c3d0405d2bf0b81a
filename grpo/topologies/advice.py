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
    program = stage.heaviest
    is_update, bounds = program.name in TRAINS, program.found.bounds
    fields, mesh = config["stages"][stage.name], config["mesh"]
    where, remat = f"stages.{stage.name}", REMAT.index(config["model"]["remat"])
    more_tp = {"mesh.fsdp": mesh["fsdp"] // 2, "mesh.tp": mesh["tp"] * 2}
    more_fsdp = {"mesh.fsdp": mesh["fsdp"] * 2, "mesh.tp": mesh["tp"] // 2}
    is_split = config["model"]["frozen_weights"] == "split" and mesh["fsdp"] > 1
    parts, rows = fields.get("microbatches", 1), fields.get("batch", 0)
    if bounds is None and is_update:
        yield Change({f"{where}.microbatches": 2 * parts})
        if remat:
            yield Change({"model.remat": "full"})
    elif bounds is None:
        if rows > 1:
            yield Change({f"{where}.batch": rows // 2})
        yield Change({"model.seats": max(1, rows_of(fields) // 2)})
    elif bounds.limit == "interconnect":
        if is_split and is_update:
            yield Change({"model.frozen_weights": "whole"})
        yield Change(more_fsdp)
    elif bounds.limit == "bandwidth":
        yield Change(more_tp)
    elif is_update:
        if remat + 1 < len(REMAT):
            yield Change({"model.remat": REMAT[remat + 1]})
        yield Change({f"{where}.microbatches": max(1, parts // 2)})
    if bounds is not None:
        yield Change(more_fsdp)
        if is_split:
            yield Change({"model.frozen_weights": "whole"})
        yield Change(more_tp)


def rows_of(fields: Config) -> int:
    """The completions of a rollout."""
    return fields.get("batch") or fields["prompts"] * fields["group"]


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


def best(stage: Stage, others: list[tuple[Change, Stage]], memory: float) -> str:
    """What the changes come to, in one line."""
    fitting = [(change, one) for change, one in others if fits(one, memory)]
    if not fitting:
        names = "; ".join(str(change) for change, _ in others) or "none is known"
        return f"no change was found that fits or helps; compiled with: {names}"
    change, one = min(fitting, key=lambda pair: pair[1].seconds)
    if fits(stage, memory) and one.seconds >= stage.seconds:
        names = "; ".join(str(change) for change, _ in others)
        return f"nothing that was compiled is faster; tried: {names}"
    before = lasting(stage.seconds) if fits(stage, memory) else "what does not fit"
    return f"{change}: {stage.name} takes {lasting(one.seconds)} in place of {before}"


def fits(stage: Stage, memory: float) -> bool:
    """Whether every program of a stage does."""
    return all(one.found.bounds and one.found.held <= memory for one in stage.programs)
