"""What a run takes by estimate: seconds of its programs, times how often each of them runs.

    stage = Σ over programs: seconds · calls

Where judges have chips for themselves and `staleness` lets the policy sample meanwhile, the longer
of the two counts. What hangs on data, such as how many test problems there are, has no calls, and
is said beside the sum.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from grpo.topologies.programs import Found

SAMPLING = ("decoding weights", "rollout", "log-probs", "teacher log-probs", "entropy")


class Timed(NamedTuple):
    """A program of a stage, and how often it runs in it."""

    name: str
    calls: int | None  # None: that hangs on data
    found: Found
    is_apart: bool = False  # on chips of its own

    @property
    def seconds(self) -> float:
        """Of all its runs that are counted."""
        return self.found.bounds.seconds * (self.calls or 0) if self.found.bounds else 0.0


class Stage(NamedTuple):
    """A stage of a run."""

    name: str
    iterations: int | None  # None: it trains nothing
    overlaps: bool  # judges read while the policy samples
    programs: tuple[Timed, ...]

    @property
    def seconds(self) -> float:
        """Of the whole stage."""
        return sum(one.seconds for one in self.programs) - self.hidden

    @property
    def hidden(self) -> float:
        """Seconds in which two halves of a slice work at once."""
        if not self.overlaps:
            return 0.0
        apart = sum(one.seconds for one in self.programs if one.is_apart)
        own = [one for one in self.programs if one.name in SAMPLING and not one.is_apart]
        return min(apart, sum(one.seconds for one in own))

    @property
    def heaviest(self) -> Timed:
        """The program that takes most: of the memory, if it does not fit; else of the time."""
        return max(self.programs, key=lambda one: (not one.found.fits, one.seconds, one.found.held))

    @property
    def fits(self) -> bool:
        """Whether every program does."""
        return all(one.found.fits for one in self.programs)


def stage_of(
    config: Mapping[str, Any], name: str, calls: Mapping[str, int | None], looked: dict[str, Found],
    apart: frozenset[str],
) -> Stage:  # fmt: skip
    """A stage of a config, of whose programs is known what a compiler says."""
    fields = config["stages"][name]
    return Stage(
        name=name,
        iterations=fields.get("iterations", fields.get("steps")),
        overlaps=bool(fields.get("staleness")),
        programs=tuple(
            Timed(program, calls[program], found, program in apart)
            for program, found in looked.items()
        ),
    )


def not_counted(config: Mapping[str, Any], stages: list[Stage]) -> list[str]:
    """What the sum of a run leaves out, a phrase each."""
    said = ["compiling", "loading and saving", "the host's own work, rewards among it"]
    for stage in stages:
        fields = config["stages"][stage.name]
        for one in stage.programs:
            if one.calls is None and one.found.bounds:
                said.append(f"{stage.name}: {one.name}, {one.found.bounds.seconds:.2f} s each")
        if fields.get("dynamic_sampling") == "refill":
            said.append(f"{stage.name}: further rounds, {fields['max_rounds'] - 1} at most")
        for entry in fields.get("rewards", {}).values():
            judge = config["judges"].get(entry["options"].get("judge"), {})
            if judge.get("url"):
                said.append(f"{stage.name}: waiting for {judge['url']}")
    return said
