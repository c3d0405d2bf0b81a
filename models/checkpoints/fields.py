"""The fields of a model's description, each checked as it is read."""

import reprlib
from typing import Any

from models.checkpoints.files import CheckpointError


class Fields:
    """Fields with their defaults; `where` names the file in errors."""

    def __init__(self, data: dict, defaults: dict, where: str):
        self.data, self.defaults, self.where = data, defaults, where

    def fail(self, name: str, expected: str) -> CheckpointError:
        """The error of a field that is something else."""
        found = reprlib.repr(self.data.get(name))  # long and deep values are cut short
        return CheckpointError(f"{self.where}: {name}={found}: expected {expected}")

    def get(self, name: str) -> Any:
        """A field as it is."""
        return self.data.get(name, self.defaults.get(name))

    def whole(self, name: str, end: int = 10**7) -> int:
        """A positive whole number below `end`."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < end:
            raise self.fail(name, f"a positive whole number below {end}")
        return value

    def real(self, name: str) -> float:
        """A positive number."""
        value = self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
            raise self.fail(name, "a positive number")
        return float(value)

    def optional(self, name: str) -> float | None:
        """A positive number, or none."""
        return None if self.get(name) is None else self.real(name)
