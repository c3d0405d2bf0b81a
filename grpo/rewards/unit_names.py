"""Units by every name: symbols and words, with the prefixes of the SI.

Factors and zeros are exact in the base units m, g, s, mol, K and A; a joule is 1000 g m²/s². The
dalton, which is measured, has its value of CODATA 2018. A calorie is 4.184 J, M is mol/L, % a
hundredth.
"""

from fractions import Fraction
from typing import NamedTuple

PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "": 0,
    "da": 1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12,
}  # fmt: skip
PREFIX_NAMES = {
    "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "": 0, "kilo": 3, "mega": 6,
}  # fmt: skip


class Unit(NamedTuple):
    """A factor and the exponents of m, g, s, mol, K, A; where its scale has its zero, in K."""

    factor: Fraction
    exponents: tuple[int, ...]
    zero: Fraction = Fraction(0)


def unit(factor: str, *exponents: int, zero: str = "0") -> Unit:
    """A unit of the tables below; exponents that are left out are 0."""
    return Unit(Fraction(factor), (*exponents, *[0] * (6 - len(exponents))), Fraction(zero))


# Exponents: m, g, s, mol, K, A. A joule is a thousand g m²/s².
PREFIXED = {
    "m": unit("1", 1), "g": unit("1", 0, 1), "s": unit("1", 0, 0, 1), "mol": unit("1", 0, 0, 0, 1),
    "K": unit("1", 0, 0, 0, 0, 1), "A": unit("1", 0, 0, 0, 0, 0, 1), "L": unit("1/1000", 3),
    "l": unit("1/1000", 3), "M": unit("1000", -3, 0, 0, 1), "J": unit("1000", 2, 1, -2),
    "N": unit("1000", 1, 1, -2), "Pa": unit("1000", -1, 1, -2), "W": unit("1000", 2, 1, -3),
    "bar": unit("100000000", -1, 1, -2), "cal": unit("4184", 2, 1, -2), "Hz": unit("1", 0, 0, -1),
    "C": unit("1", 0, 0, 1, 0, 0, 1), "V": unit("1000", 2, 1, -3, 0, 0, -1),
    "Da": unit("1.66053906660e-24", 0, 1), "eV": unit("1.602176634e-16", 2, 1, -2),
}  # fmt: skip
SYMBOLS = {
    "atm": unit("101325000", -1, 1, -2), "torr": unit("2533125/19", -1, 1, -2),
    "Torr": unit("2533125/19", -1, 1, -2), "mmHg": unit("133322.387415", -1, 1, -2),
    "min": unit("60", 0, 0, 1), "h": unit("3600", 0, 0, 1), "hr": unit("3600", 0, 0, 1),
    "hrs": unit("3600", 0, 0, 1), "sec": unit("1", 0, 0, 1), "d": unit("86400", 0, 0, 1),
    "u": unit("1.66053906660e-24", 0, 1), "amu": unit("1.66053906660e-24", 0, 1),
    "t": unit("1000000", 0, 1), "%": unit("1/100"), "ppm": unit("1/1000000"),
    "°C": unit("1", 0, 0, 0, 0, 1, zero="273.15"),
    "°F": unit("5/9", 0, 0, 0, 0, 1, zero="45967/180"),
}  # fmt: skip
NAMES = {
    "gram": "g", "liter": "L", "litre": "L", "mole": "mol", "mol": "mol", "meter": "m",
    "metre": "m", "second": "s", "joule": "J", "pascal": "Pa", "newton": "N", "watt": "W",
    "calorie": "cal", "kelvin": "K", "volt": "V", "ampere": "A", "coulomb": "C",
    "molar": "M",
}  # fmt: skip
OTHER_NAMES = {
    "minute": "min", "hour": "h", "day": "d", "atmosphere": "atm", "tonne": "t",
    "percent": "%", "celsius": "°C", "fahrenheit": "°F", "°celsius": "°C", "°fahrenheit": "°F",
}  # fmt: skip


def scaled(one: Unit, power: int) -> Unit:
    """A unit with a prefix."""
    return one._replace(factor=one.factor * Fraction(10) ** power)


def full_names() -> dict[str, Unit]:
    """Units by words, with their prefixes, one and many of them."""
    found = {
        prefix + name: scaled(PREFIXED[symbol], power)
        for name, symbol in NAMES.items()
        for prefix, power in PREFIX_NAMES.items()
    }
    found |= {name: SYMBOLS[symbol] for name, symbol in OTHER_NAMES.items()}
    return found | {f"{name}s": one for name, one in found.items()}


FULL_NAMES = full_names()
# SYMBOLS last: "min" is a minute, whatever a prefix makes of its letters.
UNITS = {
    **FULL_NAMES,
    **{p + symbol: scaled(one, n) for symbol, one in PREFIXED.items() for p, n in PREFIXES.items()},
    **SYMBOLS,
}
