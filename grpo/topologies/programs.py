"""A program of a run, compiled for chips that are not there: its bytes, its bounds, what it moves.

    arguments + results that are no arguments + temporaries + what lives beside them <= memory

Bytes are a chip's. The compiler says the sums; of the arguments each kind is reckoned from the
shapes, and a cache, which is among the temporaries, as well. Of several prompt lengths the largest
is taken, and every completion is as long as it may be.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from grpo.rollout.sampler import has_prompts_once
from grpo.tools.preflight import cache_of
from grpo.tools.shapes import by_device, device_bytes, leaves_beside
from grpo.topologies import hlo
from grpo.topologies.bounds import Bounds, bounds_of
from grpo.topologies.chips import Chip
from grpo.topologies.products import product_flops
from grpo.training.program import Program, Shape
from models.policy import Policy
from models.sharding import path_name

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
WEIGHTS, ADAPTER, TRAINED = "weights", "adapter", "trained"
MOMENTS, ROWS, CACHE = "optimizer", "rows", "cache"


class Compiled(NamedTuple):
    """What a compiler says of a program."""

    arguments: int
    results: int  # that are no arguments
    temporaries: int
    cycles: int
    collectives: Mapping[hlo.Moved, tuple[int, int]]
    refused: str | None = None  # why it does not compile: it needs too much
    needs: int = 0  # bytes that it would need then


class Found(NamedTuple):
    """A program of a stage on its chips."""

    chips: int
    kinds: Mapping[str, int]  # of its arguments; and the cache
    compiled: Compiled
    beside: int  # bytes that live through the stage and are none of its arguments
    bounds: Bounds | None  # None: it was refused, since it does not fit
    memory: float  # bytes of a chip

    @property
    def held(self) -> int:
        """The bytes of a chip while it runs."""
        it = self.compiled
        own = it.needs if it.refused else it.arguments + it.results + it.temporaries
        return own + self.beside

    @property
    def fits(self) -> bool:
        """Whether it does, beside what lives through the stage."""
        return self.bounds is not None and self.held <= self.memory


class Compiler:
    """Compiles programs for chips, each once: stages that are alike share one."""

    def __init__(self, chip: Chip, devices: Sequence[Any], platform: str = "tpu"):
        self.chip, self._devices, self._platform = chip, devices, platform
        self._known: dict[str, Compiled] = {}

    def look(self, program: Program, policy: Policy, living: Any) -> Found:
        """A program in its largest case; `living` lives through its stage."""
        case, static = program.cases[-1], program.static
        trips = trips_of(program)
        traced = program.trace(self.placed(case))
        compiled = self.compiled(traced, trips if "seats" in static else 1)
        chips = len(chips_of(case))
        kinds = kinds_of(case)
        if "max_new_tokens" in static:
            kinds[CACHE] = sum(cache_bytes(program, policy))
        bounds = bounds_of(
            self.chip,
            chips,
            cycles=compiled.cycles,
            flops=product_flops(traced, trips),
            read=read_bytes(program, policy, kinds, trips),
            collectives=compiled.collectives,
        )
        beside = device_bytes(leaves_beside(case, on_chips_of(case, living)))
        refused = compiled.refused is not None
        memory = self.chip.memory
        return Found(chips, kinds, compiled, beside, None if refused else bounds, memory)

    def placed(self, case: tuple) -> tuple:
        """The arguments of a program without a mesh, on the first chip."""
        if any(isinstance(x, Shape) and x.sharding for x in jax.tree.leaves(case)):
            return case
        where = SingleDeviceSharding(self._devices[0])

        def one(x: Any) -> Any:
            is_shape = isinstance(x, Shape) and x.sharding is None
            return Shape(x.shape, x.dtype, sharding=where) if is_shape else x

        return jax.tree.map(one, case)

    def compiled(self, traced: Any, unknown: int) -> Compiled:
        """What the compiler says."""
        lowered = traced.lower(lowering_platforms=(self._platform,))
        key = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        if key not in self._known:
            self._known[key] = compile_it(lowered, unknown)
        return self._known[key]


def compile_it(lowered: Any, unknown: int) -> Compiled:
    """A lowered program, compiled; what does not fit is no error but an answer."""
    try:
        done = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        line = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in line:
            raise
        return Compiled(0, 0, 0, 0, {}, line[:200], needed_by(line))
    memory, module = done.memory_analysis(), hlo.parse(done.as_text())
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        cycles=hlo.cycles(module, unknown=unknown),
        collectives=hlo.collectives(module, unknown=unknown),
    )


def needed_by(refusal: str) -> int:
    """The bytes in a refusal: "Used 18.10G of 15.75G hbm" or "temporaries (1.00T) exceeds"."""
    found = re.search(r"Used ([\d.]+)([KMGT])|\(([\d.]+)([KMGT])\)", refusal)
    if not found:
        return 0
    number, unit = [x for x in found.groups() if x]
    return int(float(number) * UNITS[unit])


def trips_of(program: Program) -> int:
    """The decode steps of a rollout at most; 1 of any other program."""
    static = program.static
    if "max_new_tokens" not in static:
        return 1
    rows = len(program.cases[-1][4])
    return math.ceil(rows / static.get("seats", rows)) * static["max_new_tokens"]


def chips_of(case: Any) -> frozenset[int]:
    """The numbers of the chips that a program runs on, or that arrays lie on."""
    shapes = [x for x in jax.tree.leaves(case) if isinstance(x, Shape)]
    return frozenset(by_device([x for x in shapes if x.sharding])) or frozenset({0})


def on_chips_of(case: tuple, living: Any) -> list[Any]:
    """Those of some arrays that lie on the chips of a program."""
    own = chips_of(case)
    return [x for x in jax.tree.leaves(living) if chips_of(x) & own]


def kinds_of(case: tuple) -> Counter[str]:
    """The bytes of a chip that the arguments take, by what they are."""
    found: Counter[str] = Counter()
    for path, x in jax.tree_util.tree_leaves_with_path(case):
        if isinstance(x, Shape):
            found[kind_of(path)] += device_bytes(x)
    return found


def kind_of(path: tuple) -> str:
    """What an argument is, by where it stands: the fields of a state, the names of a parameter."""
    fields = {key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)}
    if "opt_state" in fields:
        return MOMENTS
    if "trainable" in fields:
        return TRAINED
    name = path_name(path)
    if re.search(r"layers/(attention|mlp)/\w+/[ab]$", name):
        return ADAPTER
    return WEIGHTS if name else ROWS


def cache_bytes(program: Program, policy: Policy) -> tuple[int, int]:
    """The cache of a rollout on a chip: of prompts for themselves, and of its rows."""
    module, _, ids_PI, _, key_B, *_ = program.cases[-1]
    (prompts, width), static = ids_PI.shape, program.static
    has_seats, shares = "seats" in static, has_prompts_once(module)
    own = width if has_seats or not shares else 0  # of its prompt, in each row
    rows = static.get("seats", len(key_B)), own + static["max_new_tokens"]
    apart = prompts if has_seats or shares else 0, width
    before, after = (device_bytes(cache_of(policy, *size)) for size in (apart, rows))
    return before, after


def read_bytes(program: Program, policy: Policy, kinds: Mapping[str, int], trips: int) -> int:
    """What a chip must read at least: the weights for every step or microbatch, moments twice.

    A step of a rollout reads the prompts as well, and of what is written half, in the mean.
    """
    parts = program.static.get("parts", program.facts.get("microbatches", 1))
    each = sum(kinds.get(kind, 0) for kind in (WEIGHTS, ADAPTER, TRAINED))
    if CACHE in kinds:
        before, after = cache_bytes(program, policy)
        each += before * ("seats" not in program.static) + after // 2
    return each * trips * parts + 2 * kinds.get(MOMENTS, 0)
