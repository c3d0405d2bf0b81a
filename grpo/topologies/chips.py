"""Slices of TPUs that need not be there, and what one of their chips can do at most.

Peaks are Google's: the page of each version under https://cloud.google.com/tpu/docs (v5e, v5p,
v6e). `ring` is what a chip sends to both of its neighbours along one axis, the published
bidirectional bandwidth of the chip by its ports: of four ports of a v5e two are of a ring. The
usable memory is what libtpu says that a program may have. The clock is no part of what the compiler
says, which is in cycles:

    peak FLOP/s = units · 128 · 128 · 2 · clock

with four units in a v5e and eight in a v5p, so 1.5 and 1.75 GHz; on a v5e that fits what the
compiler says of one large product, 88 % of the peak. What a v6e does per cycle is not published in
a way that its peak follows from, so there the compiler's own estimate is left out.

A v4 is not here: for libtpu it is two devices, which share its memory.
"""

import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

GIB = 2**30


class Chip(NamedTuple):
    """What one chip can do at most."""

    flops: float  # per second, of bfloat16 products
    bandwidth: float  # bytes per second of its memory
    memory: float  # bytes that a program may have
    ring: float  # bytes per second to the neighbours along one axis
    clock: float | None  # cycles per second
    host: tuple[int, int, int]  # chips of a host


CHIPS = {
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 400e9 / 4, 197e12 / (4 * 128 * 128 * 2), (2, 4, 1)),
    "v5p": Chip(459e12, 2765e9, 95.74 * GIB, 1200e9 / 6, 459e12 / (8 * 128 * 128 * 2), (2, 2, 1)),
    "v6e": Chip(918e12, 1638e9, 31.25 * GIB, 800e9 / 4, None, (2, 4, 1)),
}
# Several processes may compile at a time; none of them looks for a machine with chips, or says so.
ALONE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
FORM = re.compile(r"(\w+):(\d+)x(\d+)(?:x(\d+))?")


class TopologyError(ValueError):
    """A slice that there cannot be, or no compiler for it; one line."""


class Slice(NamedTuple):
    """A slice by its name, such as v5e:2x4."""

    name: str
    chip: Chip
    sizes: tuple[int, ...]  # chips along each direction

    @property
    def count(self) -> int:
        """How many chips there are."""
        return math.prod(self.sizes)


def slice_of(name: str) -> Slice:
    """The slice of a name."""
    found = FORM.fullmatch(name)
    if not found or found[1] not in CHIPS:
        raise TopologyError(
            f"--topology={name}: expected one of {', '.join(CHIPS)} and chips by chips, "
            "such as v5e:2x4 or v5p:2x2x1"
        )
    sizes = tuple(int(n) for n in found.groups()[1:] if n)
    if 0 in sizes:
        raise TopologyError(f"--topology={name}: has no chips; such as v5e:2x4 has eight")
    return Slice(name, CHIPS[found[1]], sizes)


def require_enough(chosen: Slice, devices: int) -> None:
    """Refuses a slice whose chips are not the number of a config's devices."""
    if chosen.count != devices:
        raise TopologyError(
            f"--topology={chosen.name}: has {chosen.count} chips, mesh.fsdp * mesh.tp (and meshes) "
            f"of the config take {devices}: name another slice, or set --config.mesh.fsdp or .tp"
        )


def devices_of(chosen: Slice) -> Sequence[Any]:
    """Its chips, of one host where it has no more than that: libtpu is needed, no TPU."""
    host = tuple(map(min, (*chosen.sizes, 1)[:3], chosen.chip.host))
    for name, value in ALONE.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_enable_compilation_cache", False)  # it keeps no program of such chips
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=chosen.name, chips_per_host_bounds=host
        ).devices
    except Exception as error:  # of several kinds, by what is missing
        reason = " ".join(str(error).split())[:200]
        if "not installed" in reason:
            raise TopologyError(
                f"--topology={chosen.name}: needs the TPU compiler: pip install -e '.[tpu]' "
                f"({reason})"
            ) from None
        raise TopologyError(f"--topology={chosen.name}: no such slice: {reason}") from None
