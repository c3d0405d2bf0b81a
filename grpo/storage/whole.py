"""Files that are replaced as a whole, for those who read them at any time."""

import os
import pathlib
import platform


def put(file: pathlib.Path, data: bytes) -> None:
    """Replaces a file by a draft of this process's own, if it is not the same already."""
    if file.exists() and file.read_bytes() == data:
        return
    draft = file.with_name(f"{file.name}.{platform.node()}.{os.getpid()}.tmp")
    draft.write_bytes(data)
    draft.replace(file)
