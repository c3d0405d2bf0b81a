r"""Quantities: a number and its unit, exactly, as multiples of the SI's base units.

    quantity = number ["× 10^" exponent] [unit]        0.5 L, 6.02 × 10^23 mol^-1, $25 °C$
    unit     = factors ["/" factors ...]               kg·m/s^2, J/(mol·K), mol L⁻¹, g per mol
    factors  = factor ((* | · | . | a space) factor ...)
    factor   = name [exponent] | "(" unit ")"

What stands behind a slash divides, to the next slash or the end: J/mol·K is J/(mol·K), as it is
mostly meant. Names and prefixes are in `unit_names`: case counts in symbols, as it does in the SI,
so that mg is not Mg and "Kg" is no unit. Factors are fractions: 0.5 L is 500 mL, and 1 atm is
101325 Pa, to the last digit.

A temperature alone is one on a scale: 25 °C is 298.15 K. Within a compound it is a difference, so
J/(g·°C) is J/(g·K). What is no unit of these, such as "apples", makes the text no quantity.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from grpo.rewards.numbers import NUMBER, value
from grpo.rewards.unit_names import FULL_NAMES, UNITS, Unit

LENGTH = 200  # characters of a quantity
LARGEST = 9  # exponent of a unit
DEPTH = 3  # parentheses in one another
AROUND = " \t\r\n$*_\\"
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
POWER = r"\^?\{?[-−+]?[0-9]{1,2}\}?(?![0-9])|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}"
TEN = re.compile(rf"[ ]?[×x*·⋅][ ]?10(?P<power>{POWER})")
DEGREES = re.compile(r"(?i:degrees?|deg|°)[ ]?(?=(?i:c|f|celsius|fahrenheit)\b)")
TOKEN = re.compile(
    rf"(?P<power>{POWER})|(?P<name>°?[^\W\d_⁰¹²³⁴⁵⁶⁷⁸⁹]+|%)|(?P<times>[ ]?[*·⋅×.][ ]?)"
    r"|(?P<over>[ ]?/[ ]?)|(?P<open>\()|(?P<close>\))|(?P<space>[ ]+)"
)
NO_UNIT = Unit(Fraction(1), (0,) * 6)


class Quantity(NamedTuple):
    """A number as it is written, and its unit; None without one."""

    number: Fraction
    unit: Unit | None


def converted(quantity: Quantity, unit: Unit) -> Fraction | None:
    """The number of a quantity in another unit, None if that measures something else."""
    own = quantity.unit
    if own is None or own.exponents != unit.exponents:
        return None
    return (quantity.number * own.factor + own.zero - unit.zero) / unit.factor


def times(left: Unit, right: Unit, power: int) -> Unit:
    """A unit times a power of another one: of temperatures only differences are left."""
    pairs = zip(left.exponents, right.exponents, strict=True)
    return Unit(left.factor * right.factor**power, tuple(a + power * b for a, b in pairs))


def exponent(text: str) -> int:
    """The number of a power: ^-2, {3}, ⁻¹."""
    return int(text.strip("^{}").translate(RAISED))


def unit_of(text: str) -> Unit | None:
    """The unit that a text is, None if it is none."""
    tokens, end = [], 0
    for found in TOKEN.finditer(text):
        if found.start() != end:
            return None
        end = found.end()
        kind = str(found.lastgroup)
        is_per = kind == "name" and found[0] == "per"
        tokens.append(("over" if is_per else kind, found[0]))
    if end != len(text):
        return None
    if len(tokens) == 1:
        return name_of(tokens[0][1])  # alone: the zero of its scale stays
    kinds = [kind for kind, _ in tokens]
    # " / " is one token; the spaces around "per" are tokens of their own.
    kept = [
        token
        for place, token in enumerate(tokens)
        if token[0] != "space" or "over" not in kinds[max(place - 1, 0) : place + 2]
    ]
    unit, rest = product(kept, depth=0)
    return None if rest else unit


def name_of(name: str) -> Unit | None:
    """The unit of a name: a symbol as it is written, a word in any case."""
    return UNITS.get(name) or (UNITS[name.lower()] if name.lower() in FULL_NAMES else None)


Tokens = list[tuple[str, str]]


def product(tokens: Tokens, *, depth: int) -> tuple[Unit | None, Tokens]:
    """The product of factors up to a closing parenthesis, and the tokens from there on."""
    unit, sign, wanted = NO_UNIT, 1, True  # whether a factor must come
    while tokens and tokens[0][0] != "close":
        (kind, text), *tokens = tokens
        if kind in ("times", "space", "over"):
            if wanted and not (kind == "over" and unit == NO_UNIT):
                return None, tokens
            sign, wanted = -1 if kind == "over" else sign, True
            continue
        factor = name_of(text) if kind == "name" else None
        if kind == "open" and depth < DEPTH:
            factor, tokens = product(tokens, depth=depth + 1)
            factor, tokens = (factor, tokens[1:]) if tokens else (None, tokens)
        if factor is None or not wanted:
            return None, tokens
        power = exponent(tokens[0][1]) if tokens and tokens[0][0] == "power" else 1
        if abs(power) > LARGEST:
            return None, tokens
        tokens = tokens[1:] if tokens and tokens[0][0] == "power" else tokens
        unit, wanted = times(unit, factor, sign * power), False
    return (None if wanted else unit), tokens


def quantity(text: str) -> Quantity | None:
    """The quantity that a text is, None if it is none."""
    text = DEGREES.sub("°", text.strip(AROUND).rstrip(".")) if len(text) <= LENGTH else ""
    token = NUMBER.match(text)
    number = value(token) if token else None
    if token is None or number is None:
        return None
    end = token.start("percent") if token["percent"] else token.end()
    if ten := TEN.match(text, end):
        number, end = number * Fraction(10) ** exponent(ten["power"]), ten.end()
    named = text[end:].strip(AROUND).replace("\\%", "%")
    if not named:
        return Quantity(number, None)
    unit = unit_of(named)
    return None if unit is None else Quantity(number, unit)
