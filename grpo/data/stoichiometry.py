"""A world made here: amounts of a substance in grams, moles and litres.

    Ann has 36 g of H2O. 1 mol is 18 g. How many mol?      36/18=2 mol      2 mol

    m = n · M        V = n · 24 L/mol

Molar masses M are rounded to whole grams, and a mole of any gas is 24 L (at room temperature and
1 bar; 24.8 L by the ideal gas law at 25 °C): these are exercises, not tables. The question says
both numbers. Level 1 goes between g and mol, level 2 between mol and L, level 3 from g to L or
back, in two steps. A problem's key is the substance and its moles, whichever way it is asked. Known
flaw: "3*24=72" is the same sum for every gas, so that the sums of level 2 are not new in the test,
only their substances are.
"""

import itertools

import numpy as np

from grpo.data.making import Drawn, below, one_of

LEVELS = {
    1: (("g", "mol"), ("mol", "g")),
    2: (("mol", "L"), ("L", "mol")),
    3: (("g", "mol", "L"), ("L", "mol", "g")),
}
MASSES = {  # g per mol
    "H2": 2, "CH4": 16, "NH3": 17, "H2O": 18, "CO": 28, "N2": 28, "O2": 32, "CO2": 44, "NaCl": 58,
    "SO2": 64,
}  # fmt: skip
NO_GAS = ("H2O", "NaCl")
LITRES = 24  # per mol of a gas
LARGEST = 12  # mol
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Gus", "Ivy", "Leo", "Max", "Zoe")
OPENERS = ("{name} has {n} {unit} of {what}.", "{name} takes {n} {unit} of {what}.")
RATES = ("1 mol is {rate} {unit}.", "Each mol is {rate} {unit}.")
ASKS = ("How many {unit}?", "How many {unit} is that?")


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A problem of a level, in words."""
    path = one_of(random, LEVELS[level])
    what = one_of(random, [name for name in MASSES if "L" not in path or name not in NO_GAS])
    moles, per_mol = 2 + below(random, LARGEST - 1), {"g": MASSES[what], "mol": 1, "L": LITRES}
    amount = {unit: moles * rate for unit, rate in per_mol.items()}
    text = [
        one_of(random, OPENERS).format(
            name=one_of(random, NAMES), n=amount[path[0]], unit=path[0], what=what
        ),
        *(
            one_of(random, RATES).format(rate=per_mol[unit], unit=unit)
            for unit in path
            if unit != "mol"
        ),
        one_of(random, ASKS).format(unit=path[-1]),
    ]
    equations = []
    for unit, then in itertools.pairwise(path):
        sign, rate = ("*", per_mol[then]) if unit == "mol" else ("/", per_mol[unit])
        equations.append(f"{amount[unit]}{sign}{rate}={amount[then]}")
    units = path[1:]
    return Drawn(
        key=f"{moles} mol {what}",
        question=" ".join(text),
        answer=f"{amount[path[-1]]} {path[-1]}",
        reasoning="; ".join(f"{e} {unit}" for e, unit in zip(equations, units, strict=True)),
        checkpoints=equations,
        more={},
    )
