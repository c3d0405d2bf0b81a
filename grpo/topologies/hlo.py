"""What the TPU compiler made of a program: what runs, how often, how long, which collectives.

    cycles = Σ over instructions: the compiler's `estimated_cycles` · trips of the enclosing loops

A loop's trips come from its condition `counter < constant` and from what its body adds to the
counter; a loop that may also end early is counted to its limit. A loop without such a condition
runs as often as the caller says, if it is the longest one of the main computation, or else once. Of
a conditional of two branches only branch 0 is taken: `jax.lax.cond` puts what happens when its
predicate is false there; of more (`jax.lax.switch`) the longest. Transfers (copy-start,
slice-start, collectives) have no cycles of their own, so the sum is one bound and the bytes to move
are another.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([^ ]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%([^ ]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    op: str
    rest: str  # operands and attributes

    @property
    def operands(self) -> list[str]:
        """The names of the operands."""
        return re.findall(r"%([^ ,()]+)", self.rest.split("), ")[0])

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one run."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0

    @property
    def origin(self) -> str:
        """The path of JAX names it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def collective(self) -> str | None:
        """Its kind, if it is a collective (or the start of one)."""
        kind = self.op.removesuffix("-start")
        return kind if kind in COLLECTIVES else None

    @property
    def is_beside(self) -> bool:
        """Whether other instructions may run while it moves something."""
        return self.op.endswith("-start")

    @property
    def bytes(self) -> int:
        """The size of its results; of an asynchronous start the largest, which is what it moves."""
        sizes = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", self.shape)
        known = [(BYTES.get(t, 4), [int(n) for n in dims.split(",") if n]) for t, dims in sizes]
        found = [width * math.prod(dims) for width, dims in known]
        return max(found, default=0) if self.is_beside else sum(found)

    @property
    def devices(self) -> int:
        """How many devices take part in a collective; 0 where that cannot be seen."""
        if found := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", self.rest):
            sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
            axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
            return math.prod(int(part or sizes[axis]) for axis, part in axes)
        if found := re.search(r"replica_groups=\[\d+,(\d+)\]", self.rest):
            return int(found[1])
        found = re.search(r"replica_groups=\{\{([\d,]*)\}", self.rest)
        return len(found[1].split(",")) if found else 0


# computation -> name -> instruction; "ENTRY" is the main one.
Module = dict[str, dict[str, Instruction]]


def parse(text: str) -> Module:
    """The computations of a module."""
    module: Module = {}
    body: dict[str, Instruction] = {}
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            body = module["ENTRY" if line.startswith("ENTRY") else found[1]] = {}
        elif found := _INSTRUCTION.match(line):
            instruction = Instruction(*found.groups())
            body["ROOT" if line.startswith("  ROOT") else found[1]] = instruction
            body[found[1]] = instruction
    return module


def named(instruction: Instruction, attribute: str) -> str:
    """A computation that an instruction names."""
    found = re.search(attribute + r"=\{?%([^ ,}]+)", instruction.rest)
    if not found:
        raise ValueError(f"{instruction.op} {instruction.name} names no {attribute}")
    return found[1]


def constant(body: dict[str, Instruction], name: str) -> int | None:
    """An integer constant's value."""
    found = re.match(r"(-?\d+)\)", body[name].rest) if body[name].op == "constant" else None
    return int(found[1]) if found else None


def trips(module: Module, loop: Instruction) -> int | None:
    """How often a loop runs at most; None if its condition is not of the usual form."""
    condition, body = (module[named(loop, part)] for part in ("condition", "body"))
    for compare in condition.values():
        if compare.op == "compare" and "direction=LT" in compare.rest:
            counter, limit = compare.operands
            index = re.search(r"index=(\d+)", condition[counter].rest)
            if index and (count := constant(condition, limit)) is not None:
                return math.ceil(count / step(body, int(index[1])))
    return None


def step(body: dict[str, Instruction], index: int) -> int:
    """What a loop's body adds to element `index` of its state, or 1 if that cannot be seen."""
    total, name = 0, body["ROOT"].operands[index]
    while body[name].op in ("add", "copy", "bitcast"):
        values = [constant(body, operand) for operand in body[name].operands]
        rest = [o for o, value in zip(body[name].operands, values, strict=True) if value is None]
        if len(rest) != 1:
            break
        total, name = total + sum(value or 0 for value in values), rest[0]
    return max(total, 1)


def walk(
    module: Module, name: str = "ENTRY", times: int = 1, unknown: int = 1
) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that runs from a computation on, and how many times.

    `unknown`: trips of the longest loop of this computation whose condition does not say them.
    """
    longest = longest_unknown(module, name) if unknown > 1 else None
    for key, instruction in module[name].items():
        if key == "ROOT":
            continue
        yield instruction, times
        if instruction.op == "while":
            again = trips(module, instruction) or (unknown if instruction is longest else 1)
            for part in ("condition", "body"):
                yield from walk(module, named(instruction, part), times * again)
        elif instruction.op == "conditional":
            yield from walk(module, branch_of(module, instruction), times)
        elif instruction.op == "call":
            yield from walk(module, named(instruction, "to_apply"), times)


def branch_of(module: Module, conditional: Instruction) -> str:
    """The branch that is taken to run."""
    found = re.search(r"branch_computations=\{([^}]*)\}", conditional.rest)
    branches = re.findall(r"%([^ ,]+)", found[1]) if found else []
    if len(branches) > 2:
        return max(branches, key=lambda name: cycles(module, name))
    return branches[0] if branches else named(conditional, "false_computation")


def longest_unknown(module: Module, name: str) -> Instruction | None:
    """The loop of a computation that takes longest, of those whose trips are not known."""
    loops = [i for key, i in module[name].items() if i.op == "while" and key != "ROOT"]
    return max(
        (loop for loop in loops if trips(module, loop) is None),
        key=lambda loop: cycles(module, named(loop, "body")),
        default=None,
    )


def cycles(module: Module, name: str = "ENTRY", unknown: int = 1) -> int:
    """The estimate for one run of a computation."""
    return sum(i.cycles * times for i, times in walk(module, name, unknown=unknown))


class Moved(NamedTuple):
    """Collectives of a kind among so many devices."""

    kind: str
    devices: int
    is_beside: bool  # other instructions may run meanwhile


def collectives(module: Module, unknown: int = 1) -> dict[Moved, tuple[int, int]]:
    """Per kind of collective: how many run, and the bytes that they yield on each chip."""
    runs: Counter[Moved] = Counter()
    moved: Counter[Moved] = Counter()
    for instruction, times in walk(module, unknown=unknown):
        for one in (instruction, *fused(module, instruction)):
            if kind := one.collective:
                key = Moved(kind, one.devices, one.is_beside or instruction.is_beside)
                runs[key] += times
                moved[key] += times * one.bytes
    return {key: (runs[key], moved[key]) for key in runs}


def fused(module: Module, instruction: Instruction) -> Iterator[Instruction]:
    """The instructions of a fusion, or of what runs beside others."""
    if instruction.op in ("fusion", "async-start"):
        body = module.get(named(instruction, "calls"), {})
        yield from (one for key, one in body.items() if key != "ROOT")
