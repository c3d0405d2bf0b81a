"""A world made here: does a solution take this step? What a small model learns to grade by.

    <reasoning>3+4=7; 7-2=6</reasoning><answer>6</answer>
    7-2=5?                                                     no

The step is an equation of the worked solution of a problem of the arithmetic world. `asked` is how
a judge of grpo/judges/prompts.py is asked for the steps of a reference (`steps` of
grpo/judges/rubrics.py): it finds them and need not solve anything. It sees no question, and of the
reference one equation at a time, of which the last one has the answer in it. Its key is all that is
seen: the same equations stand in many problems.

One solution of seven states a result only. In the others each equation may be wrong as those of a
small policy are: a result that is up to three off, another number of the question's size, the other
operation, or a result before it that was read wrongly. Later equations carry it on.

Known flaw: in 400 updates a model of three layers learns which solutions show their working, and
less of which equations are there. In the first ten iterations of configs/rar_gemma2_2b.py:tiny
(three seeds) a right completion has a higher score than a wrong one with a chance of 0.76 to 0.83;
among those that have equations, of 0.68 to 0.69. A policy that is paid by it learns to show its
working before it learns to make fewer slips.
"""

import numpy as np

from grpo.data import arithmetic
from grpo.data.arithmetic import APPLY, Problem
from grpo.data.making import Drawn, below, one_of

SLIPS = (-3, -2, -1, 1, 2, 3)
SHORT = 7  # one of so many states a result only
OTHER = {"+": "-", "-": "+", "*": "+"}
NUMBERS = (2, 3, 4, 5, 6)
YES, NO = "yes", "no"


def asked(completion: str, step: str) -> str:
    """The question whether a completion takes a step."""
    return f"{completion}\n{step}?"


def wrong(random: np.random.RandomState, left: int, sign: str, n: int) -> tuple[int, str, int, int]:
    """The parts of an equation that is not left, sign and n with their result."""
    kind, slip = below(random, 4), one_of(random, SLIPS)
    if kind == 1:
        n = one_of(random, [other for other in NUMBERS if other != n])
    elif kind == 2:
        sign = OTHER[sign]
    elif kind == 3:
        left += slip
    return left, sign, n, APPLY[sign](left, n) + (slip if kind == 0 else 0)


def worked(random: np.random.RandomState, problem: Problem, wrong_K: list[float]) -> list[str]:
    """The equations of a problem, each wrong with its own chance."""
    value, lines = problem[0], []
    for (sign, n), chance in zip(problem[1], wrong_K, strict=True):
        equation = (value, sign, n, APPLY[sign](value, n))
        if random.random_sample() < chance:
            equation = wrong(random, value, sign, n)
        value = equation[-1]
        lines.append("{}{}{}={}".format(*equation))
    return lines


def draw(random: np.random.RandomState, level: int) -> Drawn:
    """A solution of a problem of a level, a step of the reference, and whether it is in there."""
    problem = arithmetic.draw_problem(random, level)
    steps = arithmetic.equations_of(problem)
    place = below(random, len(steps))
    wrong_K = [0.1] * len(steps)
    wrong_K[below(random, place + 1)] = 0.6  # so that about half of the answers are yes
    equations = worked(random, problem, wrong_K)
    result = equations[-1].split("=")[1]
    shows_working = below(random, SHORT) > 0
    reasoning = "; ".join(equations) if shows_working else f"so {result}"
    completion = f"<reasoning>{reasoning}</reasoning><answer>{result}</answer>"
    verdict = YES if shows_working and steps[place] in equations else NO
    question = asked(completion, steps[place])
    return Drawn(
        key=question, question=question, answer=verdict, reasoning=verdict, checkpoints=[], more={}
    )
