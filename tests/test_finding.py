"""The world of solutions in which steps are looked for."""

import re

import numpy as np
import pytest

from grpo.data import finding
from grpo.data.making import make
from grpo.data.worlds import WORLDS
from grpo.judges.prompts import PROMPTS
from grpo.judges.rubrics import Criterion, criteria_of

ASKED = re.compile(
    r"<reasoning>(.*)</reasoning><answer>(-?\d+)</answer>\n(-?\d+)([+*-])(\d+)=(-?\d+)\?"
)


def drawn(count=600, level=2):
    random = np.random.RandomState(3)
    return [finding.draw(random, level) for _ in range(count)]


def parts(question):
    found = ASKED.fullmatch(question)
    assert found
    reasoning, answer, *step = found.groups()
    return reasoning, answer, "{}{}{}={}".format(*step)


def test_the_verdict_is_whether_the_step_is_there():
    """Of the equations between semicolons; where a result alone is stated there is none."""
    yes, short = [], 0
    for problem in drawn():
        reasoning, _, step = parts(problem.question)
        there = step in reasoning.split("; ")
        assert problem.answer == problem.reasoning == ("yes" if there else "no")
        yes.append(there)
        short += reasoning.startswith("so ")
    assert 0.25 < np.mean(yes) < 0.5
    assert 600 / 7 - 30 < short < 600 / 7 + 30


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_solutions_end_with_their_answer_and_a_step_is_a_true_equation(level):
    for problem in drawn(100, level):
        reasoning, answer, step = parts(problem.question)
        assert reasoning.endswith((f"={answer}", f"so {answer}"))
        found = re.fullmatch(r"(-?\d+)([+*-])(\d+)=(-?\d+)", step)
        assert found
        left, sign, n, result = found.groups()
        value = {"+": int(left) + int(n), "-": int(left) - int(n), "*": int(left) * int(n)}[sign]
        assert value == int(result)


def test_wrong_equations_are_of_four_kinds():
    """Of 9 - 4: another result, another number, the other sign, or another number before it."""
    random, kinds = np.random.RandomState(0), {"result": 0, "number": 0, "sign": 0, "left": 0}
    for _ in range(400):
        left, sign, n, result = finding.wrong(random, 9, "-", 4)
        true = left - n if sign == "-" else left + n
        off = {"result": result != true, "number": n != 4, "sign": sign != "-", "left": left != 9}
        (kind,) = [kind for kind, is_off in off.items() if is_off]
        kinds[kind] += 1
        assert abs(result - true) <= 3 and abs(left - 9) <= 3 and 2 <= n <= 6
    assert min(kinds.values()) > 70


def test_what_is_wrong_is_carried_on():
    """With a first equation that is always wrong, the second one begins with its result."""
    random = np.random.RandomState(1)
    for _ in range(50):
        first, second = finding.worked(random, (3, [("+", 4), ("-", 2)]), [1.0, 0.0])
        came_to = int(first.split("=")[1])
        assert first != "3+4=7" and second == f"{came_to}-2={came_to - 2}"
    assert finding.worked(random, (3, [("+", 4), ("-", 2)]), [0.0, 0.0]) == ["3+4=7", "7-2=5"]


def test_what_is_held_out_was_not_seen():
    known, held = (
        make("finding", WORLDS["finding"], 0, count, (2,), part, 1.0, 0.1)
        for count, part in ((3000, "train"), (300, "test"))
    )
    assert not {e["question"] for e in held} & {e["question"] for e in known}


def test_a_judge_is_asked_for_each_step_as_the_world_asks():
    example = {"question": "?", "answer": "5", "checkpoints": ["3+4=7", "7-2=5"]}
    criteria = criteria_of(example, "steps")
    assert [c.title for c in criteria] == ["3+4=7", "7-2=5"]
    assert [c.weight for c in criteria] == [1.0, 1.0]
    prompts = PROMPTS["found"](example, "<answer>5</answer>", criteria, "yes_no", 0)
    assert prompts == ["<answer>5</answer>\n3+4=7?", "<answer>5</answer>\n7-2=5?"]


def test_a_solution_without_steps_is_asked_for_its_answer():
    example = {"question": "?", "answer": "5", "checkpoints": []}
    assert criteria_of(example, "steps") == (Criterion("5", "It comes to 5.", 1.0),)
