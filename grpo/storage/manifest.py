"""Which files a directory must hold, and their sha256: what tells a whole checkpoint from another.

`manifest.json` is {file: {size, sha256}} over every other file of its directory. It is written
last, once they all are on the disk, so that a directory without it was never finished; orbax itself
reads flipped bits without a word. Files that it does not list are let be, and never read.
"""

import hashlib
import json
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

NAME = "manifest.json"
THREADS = 8  # hashing and fsync both run outside of Python's lock


def write_manifest(directory: pathlib.Path) -> None:
    """Brings all files of a directory to the disk, then the list of them."""
    paths = sorted(directory.rglob("*"))
    files = [path for path in paths if path.is_file()]
    with ThreadPoolExecutor(THREADS) as pool:
        entries = pool.map(_entry, files)
        listed = {
            file.relative_to(directory).as_posix(): entry
            for file, entry in zip(files, entries, strict=True)
        }
        list(pool.map(sync, (path for path in paths if path.is_dir())))
    write_json(directory / NAME, listed)


def write_json(file: pathlib.Path, data: dict) -> None:
    """A JSON file that is there as a whole or not at all."""
    tmp = file.with_name(f"{file.name}.tmp")
    with tmp.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(data, indent=1, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(tmp, file)
    sync(file.parent)


def sync(directory: pathlib.Path) -> None:
    """Brings the names in a directory to the disk: a rename alone may be lost with the power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(directory: pathlib.Path) -> dict[str, tuple[int, str]]:
    """File -> its size and sha256; a ValueError of one line if there is no such list."""
    try:
        data = json.loads((directory / NAME).read_text("utf-8"))
        listed = {name: (entry["size"], entry["sha256"]) for name, entry in data.items()}
    except OSError as error:
        raise ValueError(f"{NAME}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{NAME}: is no list of files") from None
    return listed


def fault(directory: pathlib.Path, under: str = "") -> str:
    """What is wrong with the listed files whose names begin with `under`; "" if nothing is."""
    try:
        listed = read_manifest(directory)
    except ValueError as error:
        return str(error)
    names = [name for name in sorted(listed) if name.startswith(under)]
    if not names:
        return f"{NAME}: lists no file {under}*"
    with ThreadPoolExecutor(THREADS) as pool:
        faults = pool.map(lambda name: _fault(directory / name, name, *listed[name]), names)
        return next(filter(None, faults), "")


def _entry(file: pathlib.Path) -> dict[str, int | str]:
    """What the manifest says of a file, which is on the disk by then."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"size": stream.tell(), "sha256": digest}


def _fault(file: pathlib.Path, name: str, size: int, sha256: str) -> str:
    """What is wrong with one file, or ""."""
    try:
        found = file.stat().st_size
        if found != size:
            return f"{name}: has {found} bytes, {NAME} says {size}"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                return f"{name}: its sha256 is not the one of {NAME}"
    except OSError as error:
        # Named both: it may be the list in which this name is damaged.
        return f"{name}: {NAME} lists it, but it cannot be read ({error.strerror})"
    return ""
