"""What the TPU compiler made of a program: what runs, how often, how long, which collectives.

    cycles = Σ over instructions: the compiler's `estimated_cycles` · trips of the enclosing loops

A loop's trips come from its condition `counter < constant` and from what its body adds to the
counter; a loop that may also end early is counted to its limit. Of a conditional only branch 0 is
taken: `jax.lax.cond` puts what happens when its predicate is false there. Transfers that run beside
the computation (copy-start, slice-start, collectives) have no cycles of their own, so the sum is
one bound and the bytes to move are another.

The clock is no part of the output. 1.5 GHz follows from 197 TFLOP/s over four units of 128 x 128
multiply-adds, and fits what the compiler says of one large product: 88 % of that peak.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

CLOCK_HZ = 197e12 / (4 * 128 * 128 * 2)  # TPU v5e
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
    def bytes(self) -> int:
        """The size of its largest result, which of an asynchronous start is what it moves."""
        sizes = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", self.shape)
        known = [(BYTES.get(t, 4), [int(n) for n in dims.split(",") if n]) for t, dims in sizes]
        return max((width * math.prod(dims) for width, dims in known), default=0)


Module = dict[
    str, dict[str, Instruction]
]  # computation -> name -> instruction; "ENTRY" is the main


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
    return re.search(attribute + r"=\{?%([^ ,}]+)", instruction.rest)[1]


def constant(body: dict[str, Instruction], name: str) -> int | None:
    """An integer constant's value."""
    found = re.match(r"(-?\d+)\)", body[name].rest) if body[name].op == "constant" else None
    return int(found[1]) if found else None


def trips(module: Module, loop: Instruction) -> int:
    """How often a loop runs, or 1 if its condition is not of the usual form."""
    condition, body = (module[named(loop, part)] for part in ("condition", "body"))
    for compare in condition.values():
        if compare.op == "compare" and "direction=LT" in compare.rest:
            counter, limit = compare.operands
            if (count := constant(condition, limit)) is not None:
                index = re.search(r"index=(\d+)", condition[counter].rest)[1]
                return math.ceil(count / step(body, int(index)))
    return 1


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


def walk(module: Module, name: str = "ENTRY", times: int = 1) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that runs from a computation on, and how many times."""
    for key, instruction in module[name].items():
        if key == "ROOT":
            continue
        yield instruction, times
        if instruction.op == "while":
            for part in ("condition", "body"):
                yield from walk(
                    module, named(instruction, part), times * trips(module, instruction)
                )
        elif instruction.op == "conditional":
            yield from walk(module, named(instruction, "branch_computations"), times)
        elif instruction.op == "call":
            yield from walk(module, named(instruction, "to_apply"), times)


def milliseconds(module: Module, name: str = "ENTRY") -> float:
    """The estimate for one run of a computation."""
    return 1e3 * sum(i.cycles * times for i, times in walk(module, name)) / CLOCK_HZ


def collectives(module: Module, name: str = "ENTRY") -> dict[str, list[float]]:
    """Per kind of collective: how many run, and the MiB that they yield on each chip."""
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for instruction, times in walk(module, name):
        if kind := instruction.collective:
            found[kind][0] += times
            found[kind][1] += times * instruction.bytes / 2**20
    return dict(found)


def longest_loop(module: Module) -> Instruction:
    """The loop of the main computation that takes longest."""
    loops = [i for key, i in module["ENTRY"].items() if i.op == "while" and key != "ROOT"]
    return max(
        loops, key=lambda loop: trips(module, loop) * milliseconds(module, named(loop, "body"))
    )
