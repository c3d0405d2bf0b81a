"""Messages between a run and its reward processes: JSON behind its length, four bytes of it.

Nothing is pickled: what a process sends is data to be doubted. Text is written as UTF-8 that lets
lone surrogates pass, code point by code point; JSON's own escapes would join two of them to one.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

LENGTH = struct.Struct(">I")
LARGEST = 2**26  # bytes of a message that is believed


class MessageError(ValueError):
    """Bytes that are no message, or a message that is no answer: what the other end did."""


def packed(message: Any) -> bytes:
    """A message as it is sent."""
    text = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return LENGTH.pack(len(text)) + text


def unpacked(received: bytearray, *, largest: float) -> Iterator[Any]:
    """Takes the messages that are complete from what was received."""
    while len(received) >= LENGTH.size:
        (size,) = LENGTH.unpack_from(received)
        if size > largest:
            raise MessageError(f"sent a message of {size} bytes")
        end = LENGTH.size + size
        if len(received) < end:
            return
        text = bytes(received[LENGTH.size : end])
        del received[:end]
        try:
            message = json.loads(text.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            raise MessageError("sent a message that is no JSON") from None
        yield message
