"""Durations as people write them: '8h40m'."""

import re

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[dhms])+")


def seconds_of(text: str) -> float:
    """The seconds of a duration; a ValueError of one line if it is none."""
    if not DURATION.fullmatch(text):
        raise ValueError("expected a duration, such as '8h40m', '90m' or '1d12h'")
    parts = re.findall(r"([0-9.]+)([dhms])", text)
    units = [unit for _, unit in parts]
    if units != sorted(set(units), key=list(UNITS).index):
        raise ValueError("expected each of d, h, m and s once at most, in this order")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds:
        raise ValueError("expected more than no time")
    return seconds
