"""Numbers by hand: what is one, what it is worth, what equals what."""

from fractions import Fraction

import pytest

from grpo.rewards.numbers import (
    DIGITS,
    EXPONENT,
    LENGTH,
    NUMBER,
    parse_number,
    same_number,
    value,
)


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text that have a value, in order."""
    found = [value(token) for token in NUMBER.finditer(text)]
    return [number for number in found if number is not None]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        (" 72\n", "72"),
        ("72.", "72"),
        ("72.0", "72"),
        ("072", "72"),
        ("+72", "72"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("-0", "0"),
        (".5", "1/2"),
        ("-.5", "-1/2"),
        ("0.1", "1/10"),
        ("1,080", "1080"),
        ("1,234,567.89", "123456789/100"),
        ("12,345", "12345"),
        ("$72", "72"),
        ("$ 72", "72"),
        ("\\$72", "72"),
        ("$72$", "72"),
        ("**72**", "72"),
        ("-$1,080.50", "-2161/2"),
        ("$-5", "-5"),
        ("€72", "72"),
        ("£.50", "1/2"),
        ("¥1000", "1000"),
        ("72€", "72"),
        ("= 72", "72"),
        ("=$72", "72"),
        ("72 clips", "72"),
        ("72 clips.", "72"),
        ("72 clips (in all)", "72"),
        ("72km/h", "72"),
        ("72-year-old", "72"),
        ("5th", "5"),
        ("9 cm²", "9"),
        ("20°C", "20"),
        ("20 Äpfel", "20"),
        ("50%", "50"),
        ("50 \\%", "50"),
        ("50 percent", "50"),
        ("12.5% of it", "25/2"),
        ("3/4", "3/4"),
        ("6 / 8", "3/4"),
        ("-3/4", "-3/4"),
        ("3/4 cup", "3/4"),
        ("1 1/2", "3/2"),
        ("-1 1/2 cups", "-3/2"),
        ("1e3", "1000"),
        ("2.5E-3", "1/400"),
        (f"1e{EXPONENT}", str(10**EXPONENT)),
        ("9" * DIGITS, "9" * DIGITS),
    ],
)
def test_is_one_number(text, number):
    assert parse_number(text) == Fraction(number)
    assert numbers_in(text) == [Fraction(number)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seventy-two",
        "72 or 5 or 9",
        "72 5",
        "72\n5",
        "72 and a half",
        "72 or more",
        "not 72",
        "72? No",
        "72 or five",
        "3 million",
        "5k",
        "2 dozen",
        "5 squared",
        "5!",
        "10000000000!",
        "10²",
        "10 ²",
        "1½",
        "10^2",
        "2*36",
        "2+x",
        "72 = x",
        "x = 72",
        "about 72",
        "~72",
        "(72)",
        "- 5",
        "--5",
        "+-5",
        "20-17",
        "3-4 cups",
        "12:30",
        "10,80",
        "1,0800",
        "1234,567",
        "0,123",
        "1,08",
        ",080",
        "1,,080",
        "1.080,50",
        "1.2.3",
        "1 080",
        "1_000",
        "0x1F",
        "1/0",
        "1/2/3",
        "1 3/2",
        "1.5/2",
        "1e999",
        f"1e{EXPONENT + 1}",
        "1e5.5",
        "nan",
        "inf",
        "-Infinity",
        "٣",
        "7٣",
        "七",
        "72七",
        "Ⅻ",
        "³",
        "72\u200f",
        "72\0",
        "\ud80072",
        "9" * (DIGITS + 1),
        "9" * 5000,
        "72" + " clips" * LENGTH,
        "().__class__.__base__",
        "9**9**9",
    ],
)
def test_is_no_number(text):
    assert parse_number(text) is None
    assert not same_number(text, text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("48/2 = 24 and 48+24 = 72.", ["24", "24", "48", "24", "72"]),
        ("20-17", ["20", "17"]),
        ("20 - 17 = 3", ["20", "17", "3"]),
        ("from -3 to −1, x=-2", ["-3", "-1", "-2"]),
        ("covid-19", ["19"]),
        ("(5)-3, [5]-3, 5%-3", ["5", "3", "5", "3", "5", "3"]),
        ("1,080 of 10,80", ["1080", "10", "80"]),
        ("12 3/4", ["51/4"]),
        ("a 1/0 b 1e999 c 2", ["2"]),
        ("v1.2.3", ["6/5", "3"]),
        ("٣ apples, 4 pears", ["4"]),
        ("9" * 5000 + " 1", ["1"]),
        ("none", []),
    ],
)
def test_all_numbers_in_order(text, numbers):
    assert numbers_in(text) == [Fraction(number) for number in numbers]


@pytest.mark.parametrize(
    ("guess", "gold"),
    [
        ("72", "72"),
        ("72.00", "72"),
        ("72 clips", "72"),
        ("$72", "72"),
        ("1,080", "1080"),
        ("1080", "1,080"),
        ("−5", "-5"),
        ("0.75", "3/4"),
        ("1 1/2", "1.5"),
        ("0.1", "1/10"),
        ("1e3", "1,000"),
        ("50%", "50"),
        ("50%", "0.5"),
        ("50", "50%"),
        ("0.5", "50%"),
        ("1/2", "50 percent"),
        ("50%", "50 %"),
        ("0%", "0"),
        ("0.30000000000000000001", "0.30000000000000000001"),
    ],
)
def test_equal(guess, gold):
    assert same_number(guess, gold)


@pytest.mark.parametrize(
    ("guess", "gold"),
    [
        ("70", "72"),
        ("5", "-5"),
        ("72 or 5 or 9", "72"),
        ("72 million", "72"),
        ("1", "1,080"),
        ("10,80", "1080"),
        ("0.3333", "1/3"),
        ("0.30000000000000000001", "0.3"),
        ("9007199254740993", "9007199254740992"),
        ("50%", "5000"),
        ("0.5", "50"),
        ("50%", "0.5%"),
        ("0.5%", "50%"),
        ("3", "٣"),
        ("1000", "1_000"),
        ("5!", "5"),
        ("10²", "10"),
        ("", ""),
        ("72", ""),
    ],
)
def test_different(guess, gold):
    assert not same_number(guess, gold)
    assert not same_number(gold, guess)
