"""Where things stand in a chart: ticks at 1, 2 or 5 times a power of ten, and names kept apart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

TINY = 1e-300  # powers of ten below it have no reciprocal


class Axis(NamedTuple):
    """Numbers from `low` to `high`, ticks between them and what stands at these."""

    low: float
    high: float
    ticks: list[float]
    labels: list[str]

    def share(self, value: float) -> float:
        """How far along the axis a number is, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def axis(numbers: Sequence[float], most: int, *, is_open: bool, percent: bool = False) -> Axis:
    """At most `most` steps over the numbers; an open axis ends at them, another one at ticks."""
    low, high = span(min(numbers), max(numbers), percent)
    power = math.floor(math.log10((high - low) / most))
    unit = 10.0**power
    leading = next(m for m in (1, 2, 5, 10) if m * unit * most >= (high - low) * (1 - 1e-6))
    if leading == 10:
        leading, power = 1, power + 1
    if is_open and power < 0 and all(float(value).is_integer() for value in numbers):
        leading, power = 1, 0  # half a step of training is none

    def tick(i: int) -> float:
        return i * leading * 10.0**power if power >= 0 else i * leading / 10.0**-power

    first, last = low / tick(1), high / tick(1)
    if is_open:
        first, last = math.ceil(first - 1e-6), math.floor(last + 1e-6)
    else:
        first, last = math.floor(first + 1e-6), math.ceil(last - 1e-6)
        low, high = tick(first), tick(last)
    ticks = [tick(i) for i in range(first, last + 1)]
    return Axis(low, high, ticks, labels(ticks, power, percent))


def span(low: float, high: float, percent: bool) -> tuple[float, float]:
    """The range of an axis: one number alone gets room on both sides, shares stay shares."""
    if high - low > max(1e-9 * abs(low), 1e-9 * abs(high), TINY):
        return low, high
    room = abs(low) / 2 if abs(low) > TINY else 1.0
    if percent and 0 <= low <= 1:
        return max(low - room, 0.0), min(high + room, 1.0)
    return low - room, high + room


def labels(ticks: Sequence[float], power: int, percent: bool) -> list[str]:
    """The ticks as texts, with as many decimals as steps of 10**power need."""
    if percent:
        return [f"{100 * tick:,.{max(0, -power - 2)}f}%" for tick in ticks]
    if power >= -4 and max(map(abs, ticks)) < 1e7:
        return [f"{tick:,.{max(0, -power)}f}" for tick in ticks]
    digits = [
        math.floor(math.log10(abs(tick) * (1 + 1e-9))) - power if tick else 0 for tick in ticks
    ]
    texts = [f"{tick:.{max(0, n)}e}" for tick, n in zip(ticks, digits, strict=True)]
    return [text if tick else "0" for text, tick in zip(texts, ticks, strict=True)]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places from `low` to `high` at least `gap` apart, as near to the wanted ones as can be."""
    count = len(wanted)
    gap = min(gap, (high - low) / max(count - 1, 1))
    order = sorted(range(count), key=wanted.__getitem__)
    # Place i less i gaps must not fall with i: neighbours that would are one block, at their mean.
    blocks: list[list[float]] = []
    for i, index in enumerate(order):
        blocks.append([wanted[index] - i * gap])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    bases = [mean(block) for block in blocks for _ in block]
    places = [0.0] * count
    for i, (index, base) in enumerate(zip(order, bases, strict=True)):
        places[index] = min(max(base, low), high - (count - 1) * gap) + i * gap
    return places


def mean(numbers: Sequence[float]) -> float:
    """The mean."""
    return sum(numbers) / len(numbers)
