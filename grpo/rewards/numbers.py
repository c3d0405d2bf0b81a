r"""Exact numbers out of text, in linear time: nothing is evaluated, nothing is rounded.

    number   = [sign] [currency] ( decimal [exponent] | fraction | whole fraction ) [percent]
    decimal  = 72 | 1,080 | 72.50 | .5        fraction = 3/4        whole fraction = 1 1/2
    sign     = - | + | − (U+2212), none right after a letter, a digit or a bracket: 20-17 is 20, 17
    currency = $ € £ ¥, before the sign or after it

Digits are ASCII; `int` and `float` would read ٣ and 1_000 too, and nan, inf and 1e999. A comma is
part of a number only where it cuts thousands: 1,080 is one number, 10,80 two. Too long a number, an
exponent beyond ±99, a denominator of 0 and 1 3/2 (not a fraction below one) have no value.

A text is one number if it holds exactly one, before it nothing but spaces, `=`, `*` and backslashes
and after it nothing but letters (units, words) and the punctuation around them. "72 or 5 or 9" is
none, nor is what may change the value: "5!", "10²", "72 or more", "72 and a half", "3 million",
"5k". Not even as a mistake is any of these ever taken for the number that it starts with.

Percent: "50%" is 50, and equals 0.5 as well where the other side is written without a percent sign,
as graders of word problems do. So equality is not transitive: 50 = 50% = 0.5.
"""

import re
from fractions import Fraction
from itertools import islice

LENGTH = 1000  # characters of a text that is one number; longer texts are none
DIGITS = 200  # characters of a number; int() is quadratic, and refuses 4300 digits
EXPONENT = 99

# Linear: digits are taken whole (++). Groups of commas are not: where they end in a fourth digit,
# one group is given back and the scan goes on from there; whole, each group would be tried anew.
NUMBER = re.compile(
    r"""
    (?P<sign> (?<![\w)\]}%])[-+−][$€£¥]? | [$€£¥][ ]?[-+−]? | )
    (?: (?:(?P<whole>[0-9]++)[ ])? (?P<top>[0-9]++)[ ]?/[ ]?(?P<bottom>[0-9]++)
      | (?P<decimal> (?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]) | [0-9]++) (?:\.[0-9]++)?
                   | (?<![0-9.])\.[0-9]++ )
        (?:[eE](?P<exponent>[-+]?[0-9]++))?
    )
    (?P<percent> [ ]?(?:\\?%|(?i:per[ ]?cent\b)))?
    """,
    re.VERBOSE,
)
BEFORE = "=*\\"
AFTER = ".,;:?'\"()[]/%°$€£¥*_{}\\-–—"
# After a number these make another one of it, or leave it open which one is meant.
CHANGES = re.compile(
    r"""
    (?<![a-z]) (?: one | two | three | four | five | six | seven | eight | nine | ten | eleven
    | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen | twenty
    | thirty | forty | fifty | sixty | seventy | eighty | ninety | hundred | thousand | k | million
    | billion | trillion | dozen | half | squared | cubed | factorial | or | not | no ) (?![a-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)


def value(token: re.Match) -> Fraction | None:
    """The value of a match of NUMBER, None if it has none."""
    if len(token[0]) > DIGITS:
        return None
    if token["bottom"]:
        whole, top, bottom = (int(token[name] or 0) for name in ("whole", "top", "bottom"))
        if bottom == 0 or (token["whole"] and top >= bottom):
            return None
        number = whole + Fraction(top, bottom)
    else:
        integer, _, decimals = token["decimal"].replace(",", "").partition(".")
        number = Fraction(int(integer + decimals), 10 ** len(decimals))
        if exponent := int(token["exponent"] or 0):
            if abs(exponent) > EXPONENT:
                return None
            number *= Fraction(10) ** exponent
    return -number if "-" in token["sign"] or "−" in token["sign"] else number


def only_token(text: str) -> re.Match | None:
    """The one match of NUMBER in a text, None if there is none or a second one."""
    tokens = list(islice(NUMBER.finditer(text), 2))
    return tokens[0] if len(tokens) == 1 else None


def leaves_it(after: str) -> bool:
    """Whether what follows a number leaves its value as it is."""
    return not CHANGES.search(after) and all(
        (char.isalpha() and not char.isnumeric())
        or char.isspace()
        or char in AFTER
        or (char in "²³" and before.isalpha())  # 9 cm², but not 10²
        for before, char in zip(" " + after, after, strict=False)
    )


def number_and_percent(text: str) -> tuple[Fraction, bool] | None:
    """The number that a text is, and whether it is written as a percentage."""
    if len(text) > LENGTH or (token := only_token(text)) is None:
        return None
    before = text[: token.start()]
    number = value(token)
    if number is None or before.strip().strip(BEFORE).strip() or not leaves_it(text[token.end() :]):
        return None
    return number, token["percent"] is not None


def parse_number(text: str) -> Fraction | None:
    """The number that a text is, None if it is no number or not one only."""
    parsed = number_and_percent(text)
    return parsed and parsed[0]


def same_number(guess: str, gold: str) -> bool:
    """Whether two texts are the same number, exactly; by the rule for percent above."""
    one, other = number_and_percent(guess), number_and_percent(gold)
    if one is None or other is None:
        return False
    (a, a_percent), (b, b_percent) = one, other
    if a_percent == b_percent:
        return a == b
    return a == b or (a / 100 == b if a_percent else a == b / 100)
