"""A world made here: is a solution of a sum right? What a small model learns to judge by.

    Ann has 3 apples and gets 4 more. How many now?
    <reasoning>3+4=8</reasoning><answer>8</answer>
    Right?                                                     no

The problems are those of the arithmetic world, by the same levels and keys, so that what a policy
is tested on no judge has seen. Half of the solutions show their working, and 80 % of these are
right; of the others, which state a result, 20 %: about as small policies of this world solve it.
One equation of a wrong solution has a slip that the others carry on; a wrong result without working
is as near. `asked` is how a judge of grpo/judges/prompts.py is asked.

Known flaw: models of three layers learn in minutes that working is more often right, and to check
hardly any. A policy that has such a judge alone for its reward shows working that is wrong: in one
run it fell from 23 to 8 % of right answers.
"""

import numpy as np

from grpo.data import arithmetic
from grpo.data.arithmetic import APPLY, Problem
from grpo.data.making import Drawn, below, one_of

SLIPS = (-3, -2, -1, 1, 2, 3)
RIGHT = {True: 8, False: 2}  # of ten solutions, with working and without
YES, NO = "yes", "no"


def asked(question: str, completion: str) -> str:
    """The question whether a completion is right."""
    return f"{question}\n{completion}\nRight?"


def worked(problem: Problem, slips: list[int]) -> list[str]:
    """The equations of a problem, the result of each that much too large."""
    value, lines = problem[0], []
    for (operation, n), slip in zip(problem[1], slips, strict=True):
        result = APPLY[operation](value, n) + slip
        lines.append(f"{value}{operation}{n}={result}")
        value = result
    return lines


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A problem of a level with a solution, and whether it is right."""
    problem = arithmetic.draw_problem(random, level)
    question = arithmetic.draw_wording(random, problem)
    slips, shows_working = [0] * len(problem[1]), below(random, 2) == 1
    if is_wrong := below(random, 10) >= RIGHT[shows_working]:
        place, slip = below(random, len(slips)), one_of(random, SLIPS)
        slips[place] = slip
        if any("=-" in line or "=0" in line for line in worked(problem, slips)):
            slips[place] = abs(slip)  # quantities stay above 0, as in the arithmetic world
    equations = worked(problem, slips)
    result = equations[-1].split("=")[1]
    reasoning = "; ".join(equations) if shows_working else f"so {result}"
    completion = f"<reasoning>{reasoning}</reasoning><answer>{result}</answer>"
    verdict = NO if is_wrong else YES
    return Drawn(
        key=arithmetic.key_of(problem),
        question=asked(question, completion),
        answer=verdict,
        reasoning=verdict,
        checkpoints=[],
        more={},
    )
