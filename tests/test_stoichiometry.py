"""Amounts: every answer and equation again, from the question's own numbers."""

import re

import pytest

from grpo.data.making import make
from grpo.data.stoichiometry import LEVELS, MASSES
from grpo.data.worlds import WORLDS

WORLD = {
    level: make("stoichiometry", WORLDS["stoichiometry"], 0, 300, [level], part, 1.0, 0.0)
    for part in ("train",)
    for level in LEVELS
}
ATOMS = {"H": 1, "C": 12, "N": 14, "O": 16, "Na": 23, "S": 32, "Cl": 35}


def test_these_never_change():
    first = WORLD[3][0]
    assert first["question"] == (
        "Ivy has 168 L of N2. 1 mol is 24 L. Each mol is 28 g. How many g is that?"
    )
    assert (first["answer"], first["reasoning"]) == ("196 g", "168/24=7 mol; 7*28=196 g")
    assert first["checkpoints"] == ["168/24=7", "7*28=196"] and first["problem"] == "7 mol N2"


def test_molar_masses_are_sums_of_whole_atoms():
    for name, mass in MASSES.items():
        atoms = re.findall(r"([A-Z][a-z]?)(\d*)", name)
        assert mass == sum(ATOMS[atom] * int(count or 1) for atom, count in atoms), name


@pytest.mark.parametrize("level", LEVELS)
def test_units_cancel(level):
    """amount [unit] / (rate [unit per mol]) and * (rate [then per mol]), as the question says."""
    ways = set()
    for example in WORLD[level]:
        ((n, unit, what),) = re.findall(r"(\d+) (g|mol|L) of (\w+)\.", example["question"])
        rates = dict(re.findall(r"mol is (\d+) (g|L)\.", example["question"]))
        rates = {unit: int(rate) for rate, unit in rates.items()} | {"mol": 1}
        (asked,) = re.findall(r"How many (g|mol|L)\b", example["question"])
        assert rates.get("g", MASSES[what]) == MASSES[what] and rates.get("L", 24) == 24
        moles = int(n) / rates[unit]
        assert moles == int(moles) and 2 <= moles <= 12
        assert example["answer"] == f"{int(moles) * rates[asked]} {asked}"
        assert set(rates) == {unit, asked, "mol"}  # and no other number is there to confuse
        assert {"g", "mol"} != {unit, asked} or level == 1
        assert "L" not in (unit, asked) or what not in ("H2O", "NaCl")
        ways.add((unit, asked))
    assert ways == {(way[0], way[-1]) for way in LEVELS[level]}


@pytest.mark.parametrize("level", LEVELS)
def test_reasoning_is_the_equations_with_units(level):
    for example in WORLD[level]:
        lines = example["reasoning"].split("; ")
        assert len(lines) == len(example["checkpoints"]) == (2 if level == 3 else 1)
        last = None
        for line, equation in zip(lines, example["checkpoints"], strict=True):
            ((left, sign, right, value, unit),) = re.findall(
                r"^(\d+)([*/])(\d+)=(\d+) (g|mol|L)$", line
            )
            assert line == f"{equation} {unit}" and last in (None, left)
            left, right, value = int(left), int(right), int(value)
            assert value * right == left if sign == "/" else value == left * right
            last = str(value)
        assert lines[-1].split("=")[1] == example["answer"]


def test_a_problem_is_the_same_both_ways():
    both = {}
    for example in WORLD[1]:
        both.setdefault(example["problem"], set()).add(example["answer"].split()[1])
    assert max(map(len, both.values())) == 2
