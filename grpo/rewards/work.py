"""A batch that reward processes are asked about: its units, and what has been told of them.

A unit is what a function is called on at once: one completion where `each` made the function, or
all of them. Units of one function go to a process CHUNK at a time, and are told of one by one. Of a
unit that fails every value is NaN; the reason kept of a function is that of its first row, as in
the run's own process.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grpo.rewards.batch import is_each, number, short
from grpo.rewards.messages import MessageError
from grpo.rewards.process import Process, Unit
from grpo.rewards.scores import Call, Told

CHUNK = 16  # units
GRACE = 1.0  # seconds that a call gets beyond its time: the process ends it by itself if it can


def units_of(name: str, call: Call, seconds: float) -> list[Unit]:
    """The units of a call, in order."""
    rows = range(len(call.completions))
    if is_each(call.entry.function):
        return [Unit(name, (row,), seconds + GRACE) for row in rows]
    # The function has the time of all its values, and values that are functions have it again.
    return [Unit(name, tuple(rows), 2 * seconds * len(rows) + GRACE)]


class Work:
    """A batch on its way."""

    def __init__(self, calls: Mapping[str, Call], seconds: float):
        self.calls, self.seconds = calls, seconds
        units = {name: units_of(name, call, seconds) for name, call in calls.items()}
        self.untold = {unit: True for of_name in units.values() for unit in of_name}
        self.waiting = collections.deque(
            of_name[start : start + CHUNK]
            for of_name in units.values()
            for start in range(0, len(of_name), CHUNK)
        )
        self._values = {
            name: np.full(len(call.completions), np.nan) for name, call in calls.items()
        }
        self._reasons: dict[str, dict[int, str]] = {name: {} for name in calls}

    def give(self, process: Process) -> None:
        """Gives a process the next units."""
        units = self.waiting.popleft()
        name = units[0].name
        call = self.calls[name]
        rows = [
            [(call.examples[row], call.completions[row]) for row in unit.rows] for unit in units
        ]
        limit = sum(unit.limit for unit in units)
        asked = {"name": name, "seconds": self.seconds, "limit": limit, "units": rows}
        process.give(units, asked)

    def tell(self, unit: Unit, answer: Any) -> None:
        """Keeps what a process answered, if it is an answer."""
        entry = self.calls[unit.name].entry
        try:
            found, why = answer
            pairs = zip(unit.rows, found, strict=True)
            told = {
                row: number(value, entry.low, entry.high)
                for row, value in pairs if value is not None
            }  # fmt: skip
            if not isinstance(why, str) and (why is not None or len(told) < len(unit.rows)):
                raise TypeError("no reason")
        except (TypeError, ValueError) as error:
            raise MessageError(f"sent no answer ({short(str(error))})") from None
        for row, value in told.items():
            self._values[unit.name][row] = value
        if why is not None:
            self.fail(unit, why)
        self.untold.pop(unit, None)

    def fail(self, unit: Unit, why: str) -> None:
        """Keeps why a unit has no value, or not all of them."""
        self._reasons[unit.name][unit.rows[0]] = short(why)
        self.untold.pop(unit, None)

    def give_up(self, why: str) -> None:
        """Fails what has not been told of."""
        for unit in [*self.untold]:
            self.fail(unit, why)
        self.waiting.clear()

    def take_back(self, units: Sequence[Unit]) -> None:
        """Units that another process is to have."""
        if units:
            self.waiting.appendleft(list(units))

    def told(self) -> Told:
        """The values and the first reason, by name."""
        first = {name: min(reasons, default=None) for name, reasons in self._reasons.items()}
        return {
            name: (value_B, None if (row := first[name]) is None else self._reasons[name][row])
            for name, value_B in self._values.items()
        }
