"""The world of solutions to be graded."""

import re

import numpy as np

from grpo.data import arithmetic, grading
from grpo.data.making import make
from grpo.data.worlds import WORLDS


def drawn(count=400, level=2):
    random = np.random.RandomState(3)
    return [grading.draw(random, level) for _ in range(count)]


def parts(question):
    asked, completion, last = question.rsplit("\n", 2)
    found = re.fullmatch(r"<reasoning>(.*)</reasoning><answer>(\d+)</answer>", completion)
    assert last == "Right?" and found
    return asked, found[1], int(found[2])


def value(key):
    """The gold of a problem, from its key alone."""
    total, sign = 0, 1
    for part in re.findall(r"\d+|[+-]", key):
        if part in "+-":
            sign = 1 if part == "+" else -1
        else:
            total += sign * int(part)
    return total


def test_the_verdict_is_whether_the_answer_is_right():
    right = {True: [], False: []}  # with working, and without
    for problem in drawn():
        _, reasoning, answer = parts(problem.question)
        assert problem.answer == ("yes" if answer == value(problem.key) else "no")
        right[not reasoning.startswith("so ")].append(problem.answer == "yes")
    assert 0.72 < np.mean(right[True]) < 0.88 and 0.12 < np.mean(right[False]) < 0.28


def test_solutions_end_with_their_answer():
    """Half show working, whose equations follow from each other; at most one of them is wrong."""
    shown = 0
    for problem in drawn():
        _, reasoning, answer = parts(problem.question)
        assert reasoning.endswith(str(answer))
        if reasoning.startswith("so "):
            continue
        shown += 1
        equations = [re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", e) for e in reasoning.split("; ")]
        off = []
        for one, following in zip(equations, [*equations[1:], None], strict=True):
            assert one
            left, sign, right, result = one.groups()
            true = int(left) + int(right) * (1 if sign == "+" else -1)
            off.append(int(result) - true)
            assert following is None or following[1] == result
        slips = [slip for slip in off if slip]
        assert len(slips) == (problem.answer == "no")
        assert all(1 <= abs(slip) <= 3 for slip in slips)
    assert 160 < shown < 240


def test_its_splits_are_those_of_the_arithmetic_world():
    """No judge learns of a problem that policies are tested on."""
    held = make("arithmetic", WORLDS["arithmetic"], 0, 200, (2,), "test", 1.0, 0.1)
    known = make("grading", WORLDS["grading"], 0, 2000, (2,), "train", 1.0, 0.1)
    assert not {e["problem"] for e in held} & {e["problem"] for e in known}
    assert all(e["reasoning"] == e["answer"] for e in known)


def test_the_question_is_that_of_the_arithmetic_world():
    questions = {parts(p.question)[0] for p in drawn(50)}
    assert all(question.endswith(("?", ".")) for question in questions)
    assert arithmetic.equations_of((3, [("+", 4), ("-", 2)])) == grading.worked(
        (3, [("+", 4), ("-", 2)]), [0, 0]
    )
    assert grading.worked((3, [("+", 4), ("-", 2)]), [1, 0]) == ["3+4=8", "8-2=6"]
