"""Seconds of one run of a compiled program, and what bounds them. Estimates, never timed.

    compiler       the cycles that it reckons with, at the chip's clock
    products       FLOP of matrix products / (peak of a chip · chips)
    memory         bytes that must be read / bandwidth of a chip
    interconnect   Σ over collectives: bytes that leave a chip / bandwidth of a ring of chips

    seconds = max(compiler, products, memory, collectives beside) + the other collectives

A ring of n devices gathers R bytes by sending (n - 1) / n of them along, and sums them by twice as
much. How long a collective takes to begin is published nowhere that we know of and is not in it, so
many small ones (of `tp`, in each step of a rollout) take longer than said here.
"""

from collections.abc import Mapping
from typing import NamedTuple

from grpo.topologies.chips import Chip
from grpo.topologies.hlo import Moved

# Bytes that leave a chip, by the bytes that a collective of n devices yields on each.
SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 2,  # to one neighbour, by one of the two links
}
BESIDE = 2.0  # how many times its bound an estimate may be and still be said to be bound by it


class Bounds(NamedTuple):
    """Seconds of a run of a program."""

    compiler: float | None  # None: it says none for this chip
    products: float
    memory: float
    beside: float  # collectives that other work may run beside
    alone: float  # the other ones

    @property
    def seconds(self) -> float:
        """The estimate."""
        return max(self.compiler or 0.0, self.products, self.memory, self.beside) + self.alone

    @property
    def interconnect(self) -> float:
        """Of all collectives."""
        return self.beside + self.alone

    @property
    def limit(self) -> str:
        """What bounds it: compute, bandwidth or interconnect."""
        floor = max(self.products, self.memory)
        work = max(floor, self.compiler or 0.0)
        if self.interconnect > work:
            return "interconnect"
        if work > BESIDE * floor:
            return "compute"  # vectors, and products too small for the units
        return "bandwidth" if self.memory > self.products else "compute"


def bounds_of(
    chip: Chip,
    chips: int,
    *,
    cycles: int,
    flops: int,
    read: int,
    collectives: Mapping[Moved, tuple[int, int]],
) -> Bounds:
    """The bounds of a program that runs on so many chips; `read` bytes on each."""
    seconds = {True: 0.0, False: 0.0}
    for moved, (_, size) in collectives.items():
        seconds[moved.is_beside] += sent(moved, size, chips) / chip.ring
    return Bounds(
        compiler=cycles / chip.clock if chip.clock else None,
        products=flops / (chip.flops * chips),
        memory=read / chip.bandwidth,
        beside=seconds[True],
        alone=seconds[False],
    )


def sent(moved: Moved, size: int, chips: int) -> float:
    """The bytes that leave a chip; a group that cannot be seen is that of all chips."""
    return size * SENT[moved.kind](moved.devices or chips)
