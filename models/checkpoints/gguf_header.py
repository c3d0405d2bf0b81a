"""A GGUF file's header: what it says of its model, and where each tensor lies.

    "GGUF", version, number of tensors, number of fields   little-endian, 4 + 4 + 8 + 8 bytes
    each field: name, type, value           a text is its length and UTF-8, a list type and length
    each tensor: name, sizes, type, offset  sizes from the innermost axis outwards
    the tensors                             at multiples of the alignment

The file may be anybody's: each length is compared with what is left of the file before anything is
made of it, and all is checked before any weight is read.
"""

import array
import itertools
import math
import mmap
import pathlib
import reprlib
import struct
from typing import Any, NamedTuple

import numpy as np

from models.checkpoints.files import CheckpointError, TensorInfo
from models.checkpoints.gguf_blocks import FORMATS, OTHERS, Format

NUMBERS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", start=10))  # as struct has them
TEXT, LIST = 8, 9
MOST = 2**22  # bytes of a text, items of a list
MOST_ENTRIES = 2**16  # fields, tensors; the largest Gemma has 808
MOST_NAME = 128  # bytes; ggml's own limit is 64 for tensors
MOST_AXES = 4  # ggml's own limit
ALIGNMENT = 32  # where general.alignment does not say


class Tensor(NamedTuple):
    """What the header says of a tensor; `info.dtype` is the name of its format."""

    info: TensorInfo
    form: Format
    start: int  # its first byte in the file
    size: int  # in bytes


class Header(NamedTuple):
    """A file's fields and tensors, by name."""

    file: pathlib.Path
    fields: dict[str, Any]  # lists of numbers are array.array
    tensors: dict[str, Tensor]

    def fail(self, fault: str) -> CheckpointError:
        """An error that names the file."""
        return CheckpointError(f"{self.file}: {fault}")


def read_header(file: pathlib.Path) -> Header:
    """All that stands before the weights."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise CheckpointError(f"{file}: not a GGUF file (it does not begin with GGUF)")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(file, data).header()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None


class _Reader:
    """A place in a file's bytes, which moves on with all that is read."""

    def __init__(self, file: pathlib.Path, data: mmap.mmap):
        self.file, self.data, self.place = file, data, len(b"GGUF")

    def fail(self, fault: str) -> CheckpointError:
        return CheckpointError(f"{self.file}: {fault}")

    def header(self) -> Header:
        self.version()
        num_tensors, num_fields = self.number("Q"), self.number("Q")
        if max(num_tensors, num_fields) > MOST_ENTRIES:
            raise self.fail(
                f"{num_tensors} tensors and {num_fields} fields; at most {MOST_ENTRIES} are read"
            )
        fields: dict[str, Any] = {}
        for _ in range(num_fields):
            name = self.text("a field's name", MOST_NAME)
            if name in fields:
                raise self.fail(f"has field {name!r} twice")
            fields[name] = self.value(name, self.number("I"))
        entries = [self.entry() for _ in range(num_tensors)]
        return Header(self.file, fields, self.tensors(entries, self.alignment(fields)))

    def version(self) -> None:
        version = self.number("I")
        if version and version & 0xFFFF == 0:
            raise self.fail("a big-endian GGUF file; only little-endian ones are read")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version}; 2 and 3 are read")

    def need(self, count: int, what: str) -> None:
        """Raises if fewer bytes are left."""
        left = len(self.data) - self.place
        if count > left:
            raise self.fail(f"cut off or damaged: {what} needs {count} bytes, {left} are left")

    def number(self, code: str) -> Any:
        form = struct.Struct("<" + code)
        self.need(form.size, "the next number")
        (value,) = form.unpack_from(self.data, self.place)
        self.place += form.size
        return value

    def text(self, what: str, most: int = MOST) -> str:
        length = self.number("Q")
        if length > most:
            raise self.fail(f"{what} is {length} bytes long; at most {most} are read")
        self.need(length, what)
        start, self.place = self.place, self.place + length
        try:
            return self.data[start : self.place].decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def value(self, name: str, kind: int) -> Any:
        if kind == TEXT:
            return self.text(f"field {name!r}")
        if kind == LIST:
            return self.list_of(name, self.number("I"), self.number("Q"))
        if kind not in NUMBERS:
            raise self.fail(f"field {name!r} is of unknown type {kind}")
        value = self.number(NUMBERS[kind])
        # The shortest decimal that is this float32: 1e-6, which is what was meant.
        return float(str(np.float32(value))) if NUMBERS[kind] == "f" else value

    def list_of(self, name: str, kind: int, length: int) -> Any:
        if length > MOST:
            raise self.fail(f"field {name!r} has {length} items; at most {MOST} are read")
        if kind == TEXT:
            self.need(8 * length, f"field {name!r}")
            return [self.text(f"field {name!r}") for _ in range(length)]
        if kind not in NUMBERS:
            what = "lists, which no model needs" if kind == LIST else f"unknown type {kind}"
            raise self.fail(f"field {name!r} is a list of {what}")
        values = array.array(NUMBERS[kind].replace("?", "B"))
        size = values.itemsize * length
        self.need(size, f"field {name!r}")
        values.frombytes(self.data[self.place : self.place + size])
        self.place += size
        return values

    def entry(self) -> tuple[str, list[int], int, int]:
        """A tensor's name, sizes, number of the format, offset."""
        name = self.text("a tensor's name", MOST_NAME)
        axes = self.number("I")
        if not 0 < axes <= MOST_AXES:
            raise self.fail(f"tensor {name} has {axes} axes; 1 to {MOST_AXES} are read")
        sizes = [self.number("Q") for _ in range(axes)]
        return name, sizes, self.number("I"), self.number("Q")

    def alignment(self, fields: dict[str, Any]) -> int:
        value = fields.get("general.alignment", ALIGNMENT)
        if not isinstance(value, int) or not 0 < value <= 2**20 or value & (value - 1):
            raise self.fail(f"general.alignment={reprlib.repr(value)}: expected a power of two")
        return value

    def tensors(self, entries: list, alignment: int) -> dict[str, Tensor]:
        """The tensors, none of which reaches out of the file or into another."""
        begin = -(-self.place // alignment) * alignment
        found: dict[str, Tensor] = {}
        for name, sizes, number, offset in entries:
            if name in found:
                raise self.fail(f"has tensor {name} twice")
            found[name] = self.tensor(name, sizes, number, begin + offset)
            if offset % alignment:
                raise self.fail(f"tensor {name} at {offset}: no multiple of {alignment}")
        in_order = sorted(found.values(), key=lambda tensor: tensor.start)
        for one, other in itertools.pairwise(in_order):
            if one.start + one.size > other.start:
                raise self.fail(f"tensors {one.info.name} and {other.info.name} overlap")
        return found

    def tensor(self, name: str, sizes: list[int], number: int, start: int) -> Tensor:
        form = FORMATS.get(number)
        if form is None:
            known = ", ".join(form.name for form in FORMATS.values())
            there = OTHERS.get(number, f"of unknown type {number}")
            raise self.fail(f"tensor {name} is {there}; what is read is {known}")
        if 0 in sizes or sizes[0] % form.values:
            raise self.fail(
                f"tensor {name} has rows of {sizes[0]} of {sizes}; "
                f"{form.name} needs whole blocks of {form.values}"
            )
        size = math.prod(sizes) // form.values * form.bytes
        if start + size > len(self.data):
            raise self.fail(
                f"cut off or damaged: tensor {name} ends at byte {start + size} of {len(self.data)}"
            )
        info = TensorInfo(self.file, name, tuple(reversed(sizes)), form.name)
        return Tensor(info, form, start, size)
