"""Who is at work on a job: claims that are taken atomically, and lose their force without a beat.

    <folder>/claim.0, claim.1, ...      the last one is in force

A claim is a file that is made if it is not there (O_EXCL), and whose time its owner renews. One
that is stale (not renewed for so long, given back, or of a process that is gone) is never deleted
or changed: the next number is taken, which only one can. Its former owner, if it is still alive,
sees the number and lets go. The times compared are those of the file system, against the clock of
whoever looks: machines that share a directory need clocks that agree to within `stale_seconds`.
"""

import contextlib
import functools
import json
import os
import pathlib
import platform
import time
from typing import Any, NamedTuple

PROC = pathlib.Path("/proc")


class Claim(NamedTuple):
    """A claim that is one's own."""

    folder: pathlib.Path
    number: int


def take(folder: pathlib.Path, *, stale_seconds: float) -> Claim | None:
    """A claim, or None where somebody else's is in force."""
    number = last(folder)
    if number >= 0 and not is_stale(path_of(folder, number), stale_seconds):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # somebody was faster
        text = json.dumps({**this_process(), "began": round(time.time(), 3)})
        with open(path_of(folder, number + 1), "x", encoding="utf-8") as file:
            file.write(text)
        return Claim(folder, number + 1)
    return None


def renew(claim: Claim) -> bool:
    """Keeps a claim in force; False if it is no longer, as another one has been taken."""
    if last(claim.folder) != claim.number:
        return False
    os.utime(path_of(*claim))
    return True


def give_back(claim: Claim) -> None:
    """Lets others take the job at once."""
    os.utime(path_of(*claim), (0, 0))


def owner_of(folder: pathlib.Path) -> str:
    """Who has the last claim, in words."""
    found = read(path_of(folder, last(folder)))
    return f"{found['host']}, process {found['pid']}" if found else "somebody"


def path_of(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The file of a claim."""
    return folder / f"claim.{number}"


def last(folder: pathlib.Path) -> int:
    """The number of the claim in force, -1 without any."""
    numbers = (path.suffix[1:] for path in folder.glob("claim.*"))
    return max((int(number) for number in numbers if number.isdecimal()), default=-1)


def is_stale(path: pathlib.Path, stale_seconds: float) -> bool:
    """Whether a claim has no force: it was not renewed for so long, or its process is gone."""
    if time.time() - path.stat().st_mtime > stale_seconds:
        return True
    found = read(path)  # half written: time will tell
    if found is None or found["machine"] != this_process()["machine"]:
        return False
    return found["started"] != started(found["pid"])


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """What a claim says, if it is whole."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {key: found[key] for key in ("host", "machine", "pid", "started")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def this_process() -> dict[str, Any]:
    """Where this process is, and which one."""
    return {
        "host": platform.node(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": started(os.getpid()),
    }


@functools.cache
def machine() -> str:
    """This boot of this machine and its processes: two containers may have one host name."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append((PROC / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink(PROC / "self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None if it is gone or this is not Linux."""
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]
