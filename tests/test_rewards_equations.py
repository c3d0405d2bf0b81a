"""Arithmetic read by hand, and the equations of a text: which are stated and which hold."""

import random
from fractions import Fraction

import pytest

from grpo.rewards.equations import LIMIT, about, equations_in
from grpo.rewards.expressions import DEPTH, DIGITS, TOKENS, expression, tokens_of
from grpo.rewards.order import in_order


def value(text):
    found = expression(tokens_of(text))
    return None if found is None else found.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("100 - 50 - 30 - 15", 5),
        ("12 / 4 / 3", 1),
        ("1,080 × 2", 2160),
        ("$4 · 2", 8),
        ("4 x 2", 8),
        (r"3 \times 4 \div 6", 2),
        ("48 ÷ 5", Fraction(48, 5)),
        (".5*4", 2),
        ("0.1+0.2", Fraction(3, 10)),
        ("20%", Fraction(1, 5)),
        ("20 % * 50", 10),
        ("1 1/2 + 2", Fraction(7, 2)),
        ("3/4", Fraction(3, 4)),
        ("-5 - -3", -2),
        ("--5", 5),
        ("5−3", 2),
        ("(" * DEPTH + "1" + ")" * DEPTH, 1),
        ("9" * DIGITS, int("9" * DIGITS)),
        ("1+" * (TOKENS // 2 - 1) + "1", TOKENS // 2),
    ],
)
def test_values(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "1+", "*2", "(1", "1)", "()", "1 2", "1/0", "1/(2-2)", "2**3", "2^3", "x", "2x",
        "1=1", "5 5/5", "9" * (DIGITS + 1), "(" * (DEPTH + 1) + "1" + ")" * (DEPTH + 1),
        "1+" * (TOKENS // 2) + "1", "10,80", "1.2.3", "٣+1", "𝟑+1", "1e5",
    ],
)  # fmt: skip
def test_no_value(text):
    assert value(text) is None


def tree(draw, depth):
    """A random expression: its text, and its value by Python's own fractions."""
    if depth == 0 or draw.random() < 0.3:
        number = draw.randrange(1, 30)
        return str(number), Fraction(number)
    sign = draw.choice("+-*/")
    (left, a), (right, b) = tree(draw, depth - 1), tree(draw, depth - 1)
    if sign == "/" and b == 0:
        sign = "+"
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
    return f"({left}) {sign} ({right})", result


def test_random_expressions():
    draw = random.Random(0)
    seen = set()
    for _ in range(2000):
        text, expected = tree(draw, 3)
        assert value(text) == expected, text
        seen.add(expected)
    assert len(seen) > 500


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("4*2", "2 × 4", True),
        ("3+4-2", "4-2+3", True),
        ("(1+2)*3", "3*(2+1)", True),
        ("48/2", "2/48", False),
        ("5-3", "3-5", False),
        ("48/2", "0.5*48", False),
        ("50%*8", "8*0.5", True),
        ("2*(3+4)", "2*3+4", False),
        ("12*3", "1*23", False),
    ],
)
def test_keys(one, other, same):
    left, right = (expression(tokens_of(text)) for text in (one, other))
    assert left and right and (left.key == right.key) == same


def stated(text):
    return [(str(equation.value), equation.holds) for equation in equations_in(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Natalia sold 48/2 = 24 clips in May.", [("24", True)]),
        ("48 + 24 = 72, and 48 + 24 = 73", [("72", True), ("73", False)]),
        ("48 clips / 2 = 24 clips", [("24", True)]),
        ("3+4=7; 7-2=5", [("7", True), ("5", True)]),
        ("3+4=7 7-2=5", [("7", True), ("5", True)]),
        ("- 48/2 = $24.", [("24", True)]),
        ("* 3 × 4 = 12", [("12", True)]),
        ("2. 3 * 4 = 12", [("12", True)]),
        ("**3 * 4 = 12**", [("12", True)]),
        (r"\(3 \times 4 = 12\)", [("12", True)]),
        ("total = 3*4 = 12 = 6+6", [("12", True)]),
        ("3*4 = 10+2 = 12", [("12", True), ("12", True)]),
        ("(3 * 4 = 12)", [("12", True)]),
        ("as follows (2 boxes, 3 * (1+3) = 12)", [("12", True)]),
        ("20 - 17 = 3 - so it is", [("3", True)]),
        ("10/3 = 3.33", [("333/100", True)]),
        ("10/3 = 3.34", [("167/50", False)]),
        ("10/3 = 3", [("3", False)]),
        ("1/3 = 33.3%", [("333/1000", True)]),
        ("2/10*100 = 20%", [("1/5", True)]),
        ("20/100 = 20%", [("1/5", True)]),
        ("1,000 + 80 = 1,080", [("1080", True)]),
        ("1 1/2 + 2 = 3 1/2", [("7/2", True)]),
        ("3 +\n4 = 7", []),
        ("5 = 5 and x = 5", []),
        ("5 = 3 + 2", []),
        ("3 + 4 = 7!", []),
        ("x + 3 + 4 = 9", []),
        ("2x - 5 = 13", []),
        ("half of 10 + 3 = 8", []),
        ("5 plus 3 + 1 = 9", []),
        ("2(3+4) = 14", []),
        ("f(3) + 4 = 7", []),
        ("8 + 1 = 2^3", []),
        ("3*2 = 6 million", []),
        ("3*2 = 6k", []),
        ("100/5 = 5A", []),
        ("8/3 = 24/Y", []),
        ("30 + 2 = 40 - x", []),
        ("3+4 >= 7, 3+4 != 8, 3+4 ≠ 8", []),
        ("1/0 = 5", []),
        ("the answer is 72", []),
        ("", []),
        ("=", []),
        ("1+1=", []),
        ("\ud800 1+1=2 \0", [("2", True)]),
    ],
)
def test_equations_of_a_text(text, expected):
    assert stated(text) == expected


def test_no_more_than_the_limit_is_read():
    line = "1+1=2\n"
    assert len(stated(line * LIMIT)) == LIMIT // len(line)


def test_what_is_about_a_question():
    """A number of the question on the left, or a result that comes of one and holds."""
    texts = "1+1=2, 48/2=24, 24*3=72, 24*3=70, 70+5=75, 72+5=77"
    kept = about("She sold 48 clips.", equations_in(texts))
    assert [equation.value for equation in kept] == [24, 72, 70, 77]
    assert about("No number here.", equations_in(texts)) == []


def longest(wanted, found):
    """By the recursion of its definition."""
    if not wanted or not found:
        return 0
    if wanted[0] == found[0]:
        return 1 + longest(wanted[1:], found[1:])
    return max(longest(wanted[1:], found), longest(wanted, found[1:]))


def test_in_order():
    assert in_order("abc", "xaxbxc") == 3 and in_order("abc", "cba") == 1
    assert in_order("aab", "ab") == 2 and in_order("", "a") == in_order("a", "") == 0
    draw = random.Random(1)
    for _ in range(500):
        wanted, found = ("".join(draw.choices("abcd", k=draw.randrange(7))) for _ in range(2))
        assert in_order(wanted, found) == longest(wanted, found)
