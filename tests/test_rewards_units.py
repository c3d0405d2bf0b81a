"""Quantities: numbers with units, exactly; and the reward for the gold's."""

from fractions import Fraction

import pytest

from grpo.rewards.unit_answer import unit_answer
from grpo.rewards.units import LENGTH, converted, quantity
from tests.test_rewards_demo import in_form

SAME = [
    ("0.5 L", "500 mL"), ("2 g", "2000 mg"), ("2 kg", "2e3 g"), ("1 atm", "101325 Pa"),
    ("760 torr", "1 atm"), ("1 bar", "100 kPa"), ("1 kcal", "4.184 kJ"), ("1 L", "1 dm^3"),
    ("1 mL", "1 cm³"), ("1 M", "1 mol/L"), ("250 mM", "0.25 mol L^-1"), ("25 °C", "298.15 K"),
    ("77 °F", "25 degC"), ("-40 degrees Celsius", "-40 °F"), ("0 K", "-273.15 °C"),
    ("8.314 J/(mol·K)", "8.314 J mol^-1 K^-1"), ("8.314 J/mol·K", "8.314 J mol⁻¹ K⁻¹"),
    ("4.18 J/(g·°C)", "4180 J/(kg·K)"), ("5 g per mol", "5 g/mol"),
    ("6.02 × 10^23 mol^-1", "6.02e23 mol⁻¹"), ("3.5 x 10^{-3} mol", "3.5 mmol"),
    ("1 N", "1 kg·m/s^2"), ("1 J", "1 N·m"), ("1 W", "1 J/s"), ("1 V", "1 W/A"), ("1 C", "1 A s"),
    ("90 min", "1.5 hours"), ("1 day", "86400 s"), ("3 grams", "0.003 kilograms"),
    ("2 Moles", "2 mol"), ("1 µg", "1000 ng"), ("1 μm", "1 um"), ("1/2 L", "500 milliliters"),
    ("1,500 mL", "1.5 L"), ("$12$ g", "12 g"), ("36 km/h", "10 m/s"), ("1 Hz", "1 s^-1"),
    ("1 t", "1 Mg"),
]  # fmt: skip


def in_base(text):
    found = quantity(text)
    assert found is not None and found.unit is not None, text
    unit = found.unit
    return found.number * unit.factor + unit.zero, unit.exponents


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_quantity(one, other):
    assert in_base(one) == in_base(other)


def test_exactly():
    found, gold = quantity("1 torr"), quantity("1 Pa")
    assert found and gold and gold.unit
    assert converted(found, gold.unit) == Fraction(101325, 760)
    assert in_base("50%")[0] == Fraction(1, 2) and in_base("5 ppm")[0] == Fraction(1, 200_000)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 g", "2 kg"), ("2 g", "2 L"), ("1 mg", "1 Mg"), ("1 mM", "1 MM"), ("1 m", "1 mL"),
        ("25 °C", "25 K"), ("1 J/mol", "1 J mol"), ("1 min", "1 mm"), ("1 m/s", "1 m s"),
        ("1 kJ/mol/K", "1 J/mol/K"), ("1 C", "1 °C"),
    ],
)  # fmt: skip
def test_another_quantity(one, other):
    assert in_base(one) != in_base(other)


@pytest.mark.parametrize(
    "text",
    [
        "", "g", "72 apples", "5 g or 5 kg", "72 or 5 g", "2 Kg", "5 g g/", "5 m//s", "5 · g",
        "5 (g", "5 g)", "5 ((((g))))", "5 g^99", "5 g^1000000", "five g", "about 5 g", "5 g\nno",
        "1/0 g", "9" * 300 + " g", "5 " + "g" * LENGTH, "5 \ud800", "5 g\0", "5 ^2", "5 g per",
        "10^5 g",
    ],
)  # fmt: skip
def test_no_quantity(text):
    assert quantity(text) is None


def worth(answer, gold, tolerance=0.0, bare=False, strict=True):
    example = {"answer": gold}
    completion = in_form(answer)
    return unit_answer(example, completion, tolerance=tolerance, bare=bare, strict=strict)


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("500 mL", "0.5 L", 1), ("0.5 L", "500 mL", 1), ("501 mL", "0.5 L", 0),
        ("2 kg", "2 g", 0), ("2", "2 g", 0), ("2 g", "2", 0), ("2", "2.0", 1), ("2 L", "2 g", 0),
        ("2 s", "2 g", 0),
        ("2 g or 3 g", "2 g", 0), ("2 g\n", "2 g", 1), ("-5 °C", "268.15 K", 1), ("", "2 g", 0),
        ("g", "2 g", 0), ("0 g", "0 kg", 1),
    ],
)  # fmt: skip
def test_unit_answer(answer, gold, value):
    assert worth(answer, gold) == value


def test_a_bare_number_by_option():
    assert worth("2", "2 g", bare=True) == 1 and worth("3", "2 g", bare=True) == 0
    assert worth("2 g", "2", bare=True) == 0 and worth("2000", "2 kg", bare=True) == 0


def test_tolerance_is_of_the_gold_in_its_own_unit():
    assert worth("505 mL", "0.5 L", tolerance=0.01) == 1
    assert worth("505.1 mL", "0.5 L", tolerance=0.01) == 0
    assert worth("495 mL", "0.5 L", tolerance=0.01) == 1
    assert worth("298.4 K", "25 °C", tolerance=0.01) == 1  # a quarter of a degree
    assert worth("298.5 K", "25 °C", tolerance=0.01) == 0
    assert worth("300 K", "298 K", tolerance=0.01) == 1
    assert worth("-5.05 °C", "-5 °C", tolerance=0.01) == 1


def test_the_answer_is_read_from_the_form():
    gold = {"answer": "2 g"}
    options = {"tolerance": 0.0, "bare": False}
    for text, lenient, strict in (
        (in_form("2 g"), 1, 1),
        ("Okay. " + in_form("2 g"), 1, 0),
        (in_form("3 g") + "<answer>2 g</answer>", 0, 0),
        ("2 g", 0, 0),
    ):
        assert unit_answer(gold, text, strict=False, **options) == lenient
        assert unit_answer(gold, text, strict=True, **options) == strict


def test_a_gold_that_is_no_quantity_abstains():
    with pytest.raises(ValueError, match="is no quantity: 'blue'"):
        worth("blue", "blue")
