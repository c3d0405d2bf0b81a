"""Files that are replaced as a whole, for those who read them at any time."""

import json
import os
import pathlib
import platform
from typing import Any


class DamagedError(ValueError):
    """A file of a run that cannot be read; one line that names it."""


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """The object of a JSON file; {} of one that is not there."""
    try:
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise DamagedError(
            f"{file}: cannot be read ({reason}); delete it, and it is made again"
        ) from None
    return found


def put(file: pathlib.Path, data: bytes) -> None:
    """Replaces a file by a draft of this process's own, if it is not the same already."""
    if file.exists() and file.read_bytes() == data:
        return
    draft = file.with_name(f"{file.name}.{platform.node()}.{os.getpid()}.tmp")
    draft.write_bytes(data)
    draft.replace(file)
