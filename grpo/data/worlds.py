"""The worlds made here, by the name of their source in a config."""

from grpo.data import arithmetic, finding, grading, legal, planning, stoichiometry
from grpo.data.making import World

WORLDS = {
    "arithmetic": World(arithmetic.LEVELS, arithmetic.draw),
    "planning": World(planning.LEVELS, planning.draw),
    "stoichiometry": World(stoichiometry.LEVELS, stoichiometry.draw),
    "legal": World(legal.LEVELS, legal.draw),
    "grading": World(arithmetic.LEVELS, grading.draw),
    "finding": World(arithmetic.LEVELS, finding.draw),
}
