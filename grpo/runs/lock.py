"""The directory of a run is one process's own: `lock` is held, and looked at.

The system lets go of it however the process ends. Whoever deletes the file lets a second run in, so
the first one looks whether the name still leads to the file that it holds: before every row of a
journal, before every save, and wherever it looks whether it is to stop.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator

from grpo.runs.run import RunError


class LockLostError(RuntimeError):
    """The directory may be another run's by now; one line."""


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Holds the directory; gives what raises as soon as it is no longer held."""
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(
            f"--workdir={workdir}: no directory to write in ({reason}); name another one"
        ) from None
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"--workdir={workdir}: another process is at work in it; name another directory"
            ) from None

        def hold() -> None:
            try:
                is_own = os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except OSError:
                is_own = False
            if not is_own:
                raise LockLostError(
                    f"--workdir={workdir}: its lock was deleted or replaced, so another run may be "
                    "at work in it: this one ends here, and writes nothing more"
                )

        yield hold
