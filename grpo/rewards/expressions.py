r"""Arithmetic as it is written in texts, by hand: nothing is run as code, and nothing is rounded.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = "-"* ( number | "(" sum ")" )
    number  = 72 | 1,080 | 0.5 | .5 | 1 1/2 | any of these with %, which divides it by 100

Signs that mean the same are the same: × · x X \times \cdot and *, ÷ \div and /, − and -. Spaces and
the signs of currencies are nothing. Values are exact. Every expression has a key, which is the same
for sums and products whose parts stand in another order: 2*4 and 4 × 2, 3+4-2 and 4-2+3.

A number of more than DIGITS digits, more than TOKENS tokens or more than DEPTH parentheses in one
another, and a division by 0 have no value. So the time is linear in the length, whatever stands
there, and the numbers stay short.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

DIGITS, TOKENS, DEPTH = 30, 60, 12

# The alternatives that break an expression stand where they must come first. Linear: every
# repetition is taken whole, but for groups of commas (see numbers.py), or ends at what it finds.
TOKEN = re.compile(
    r"""
    (?P<bullet> \A[ \t]*+ (?: [-+*•–] | [0-9]{1,3}[.)] ) (?=[ \t]) )
  | (?P<space> [ \t$€£¥]++ )
  | (?P<number> (?: (?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]) | [0-9]++) (?:\.[0-9]++)?
                  | \.[0-9]++ ) (?:[ ]?\\?%)? )
  | (?P<broken> \*\*++ | [<>!:~≠]= | \\[()\[\]] )
  | (?P<times> [*×·⋅∙] | (?<![^\W\d_])[xX](?=[ ]?[0-9($.]) | \\(?:times|cdot)(?![a-z]) )
  | (?P<over> [/÷] | \\div(?![a-z]) )
  | (?P<plus> \+ )
  | (?P<minus> [-−] )
  | (?P<open> \( )
  | (?P<close> \) )
  | (?P<equals> =++ )
  | (?P<word> [^\W\d_]++ )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
SIGNS = {
    "times": "*", "over": "/", "plus": "+", "minus": "-", "open": "(", "close": ")", "equals": "=",
}  # fmt: skip
SUM, PRODUCT = ("+", "-"), ("*", "/")
Number = int | Fraction  # whole numbers as int, which is several times as fast


class Token(NamedTuple):
    """A piece of a text: its kind (a sign's is the sign itself) and where it stands."""

    kind: str
    text: str
    start: int
    end: int


class Expression(NamedTuple):
    """What an expression is worth, its key, its numbers, and how many signs join them."""

    value: Number
    key: str
    operands: tuple[Number, ...]
    signs: int


def tokens_of(text: str) -> list[Token]:
    """All tokens of a line but spaces; 1 1/2 is one."""
    tokens: list[Token] = []
    for found in TOKEN.finditer(text):
        if (kind := str(found.lastgroup)) == "space":
            continue
        tokens.append(Token(SIGNS.get(kind, kind), found[0], found.start(), found.end()))
        if kind == "number" and is_mixed(tokens[-5:]):
            start = tokens[-4].start
            tokens[-4:] = [Token("number", text[start : found.end()], start, found.end())]
    return tokens


def is_mixed(tokens: Sequence[Token]) -> bool:
    """Whether tokens end in a whole number and a proper fraction, and no number before them."""
    if len(tokens) < 4 or [one.kind for one in tokens[-4:]] != ["number", "number", "/", "number"]:
        return False
    whole, top, _, bottom = (token.text for token in tokens[-4:])
    if not all(text.isdecimal() and len(text) <= DIGITS for text in (whole, top, bottom)):
        return False
    return int(top) < int(bottom) and (len(tokens) < 5 or tokens[0].kind not in ("number", "/"))


def decimals(token: Token) -> int:
    """How many digits a number has after its point."""
    return len(token.text.rstrip("\\% ").partition(".")[2])


def value_of(token: Token) -> Number | None:
    """The value of a number's token, None if it is too long."""
    if len(token.text) > DIGITS:
        return None
    if token.text.isdecimal():
        return int(token.text)
    whole, mixed, part = token.text.partition("/")
    if mixed:
        whole, _, top = whole.strip().rpartition(" ")
        return int(whole) + Fraction(int(top), int(part))
    digits = token.text.rstrip("\\% ").replace(",", "").replace(".", "")
    return quotient(int(digits), 10 ** (decimals(token) + 2 * token.text.endswith("%")))


def quotient(top: Number, bottom: Number) -> Number:
    """One number through another, whole if it can be."""
    value = Fraction(top) / bottom
    return value.numerator if value.denominator == 1 else value


class _Reader:
    """Reads an expression from the left; None wherever there is none."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens, self.at, self.depth = tokens, 0, 0

    def kind(self) -> str:
        """Of the next token."""
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def joined(self, signs: tuple[str, str]) -> Expression | None:
        """Parts joined by signs: factors by those of a product, products by those of a sum."""
        first = self.joined(PRODUCT) if signs == SUM else self.factor()
        if first is None or self.kind() not in signs:
            return first
        value, operands, count, keys = first.value, [*first.operands], first.signs, [first.key]
        while (sign := self.kind()) in signs:
            self.at += 1
            part = self.joined(PRODUCT) if signs == SUM else self.factor()
            if part is None or (sign == "/" and part.value == 0):
                return None
            value = applied(value, sign, part.value)
            operands += part.operands
            count += part.signs + 1
            keys.append(part.key if sign == signs[0] else sign + part.key)
        return Expression(value, f"({signs[0].join(sorted(keys))})", tuple(operands), count)

    def factor(self) -> Expression | None:
        """A number, or a sum in parentheses; signs before it."""
        negative = False
        while self.kind() == "-":
            negative, self.at = not negative, self.at + 1
        kind, self.at, inside = self.kind(), self.at + 1, None
        if kind == "(":
            inside = self.parenthesised()
        elif kind == "number" and (value := value_of(self.tokens[self.at - 1])) is not None:
            inside = Expression(value, str(value), (value,), 0)
        if inside is None or not negative:
            return inside
        return inside._replace(value=-inside.value, key=f"-{inside.key}")

    def parenthesised(self) -> Expression | None:
        """A sum up to its closing parenthesis."""
        self.depth += 1
        inside = self.joined(SUM) if self.depth <= DEPTH else None
        self.depth -= 1
        closed, self.at = self.kind() == ")", self.at + 1
        return inside if closed else None


def applied(left: Number, sign: str, right: Number) -> Number:
    """Two values joined by a sign; division by 0 is refused before."""
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    return left * right if sign == "*" else quotient(left, right)


def expression(tokens: Sequence[Token]) -> Expression | None:
    """The expression that tokens are, as a whole; None if they are none, or too long."""
    if len(tokens) > TOKENS:
        return None
    reader = _Reader(tokens)
    found = reader.joined(SUM)
    return found if reader.at == len(tokens) else None
