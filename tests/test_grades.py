"""Grades of completions, their intervals and differences, by hand; and the tables of them."""

import math

import numpy as np
import pytest

from grpo.evaluation.grades import (
    GradeError,
    grade_metrics,
    grade_rows,
    graded,
    grades_by_domain,
    interval,
    over,
)
from grpo.judges.asking import Reply
from grpo.judges.judging import Judge, Verdicts
from grpo.judges.prompts import PROMPTS
from grpo.judges.rubrics import RUBRICS
from grpo.reporting.grades import tables

NAN = float("nan")
EXAMPLES = [{"id": str(n), "question": f"q{n}?", "answer": "2"} for n in range(5)]


def judged(words, asked):
    """A judge that says one word after the other; a word with a colon is a failure."""
    left = iter(words)

    def ask(questions):
        asked.append([q.prompt for q in questions])
        said = [next(left) for _ in questions]
        return [
            Reply(reason=word, attempts=1) if ":" in word else Reply(text=word, attempts=1)
            for word in said
        ]

    return Judge(ask, {"model": "m"}, "overall", "trace", "nine", 0)


def verdicts_of(scores, reasons=None) -> Verdicts:
    keys = [[f"k{n}"] for n in range(len(scores))]
    replies = [Reply(text="9", attempts=1) for _ in scores]
    return Verdicts(np.array(scores, float), reasons or [None] * len(scores), keys, replies)


def grades(words, *, max_failed=1.0, batch=2, check=lambda: None, asked=None):
    asked = [] if asked is None else asked
    found = graded(
        judged(words, asked), EXAMPLES, ["a", "b", "c", "d", "e"], batch=batch,
        max_failed=max_failed, check=check,
    )  # fmt: skip
    return found, asked


def test_a_batch_at_a_time():
    """Words 1 5 9 of nine are 0, 0.5 and 1; a failure is none of them."""
    checks = []
    found, asked = grades(["1", "5", "9", "http_500: oops", "9"], check=lambda: checks.append(1))
    np.testing.assert_array_equal(found.score_B, [0.0, 0.5, 1.0, NAN, 1.0])
    assert found.reasons == [None, None, None, "http_500: oops", None]
    assert [len(part) for part in asked] == [2, 2, 1] and len(checks) == 3
    assert all("q3?" in prompt and "\nd\n" in prompt for prompt in asked[1][1:])
    assert len(found.keys) == 5 and len(found.replies) == 5


def test_too_many_failures_end_it_at_once():
    """Two of five are more than 0.2: the third batch is not asked; one of five is not."""
    words, asked = ["1", "x: 1", "x: 1", "5", "9"], []
    with pytest.raises(GradeError) as error:
        grades(words, max_failed=0.2, asked=asked)
    assert [len(part) for part in asked] == [2, 2]
    assert str(error.value) == "2 of 5 completions have no verdict, max_failed=0.2: x: 1"
    found, _ = grades(["1", "x: 1", "1", "5", "9"], max_failed=0.2)
    assert np.isnan(found.score_B).sum() == 1
    with pytest.raises(GradeError):
        grades(["1", "1", "1", "1", "x: 1"], max_failed=0.0)


def test_a_mean_out_of_ten():
    """2, 4 and 9: mean 5, s² = (9 + 1 + 16) / 2 = 13."""
    found = interval("g", np.array([0.2, NAN, 0.4, 0.9]), least=0.0)
    reach = 1.959963984540054 * math.sqrt(13 / 3)
    assert found == pytest.approx({"g": 5.0, "g/low": 5 - reach, "g/high": 5 + reach})
    assert interval("g", np.array([NAN, NAN]), least=0.0) == {}


def test_intervals_end_where_grades_do():
    assert interval("g", np.array([0.7]), least=0.0) == {"g": 7.0, "g/low": 0.0, "g/high": 10.0}
    wide = interval("g", np.array([0.0, 1.0]), least=0.0)
    assert (wide["g/low"], wide["g/high"]) == (0.0, 10.0)
    wide = interval("g", np.array([-1.0, 1.0]), least=-10.0)
    assert (wide["g"], wide["g/low"], wide["g/high"]) == (0.0, -10.0, 10.0)


def test_policies_are_compared_where_both_have_a_grade():
    """Differences 3, 1 and -1 of grades: mean 1, s² = 4."""
    own = np.array([0.9, 0.6, 0.4, NAN, 0.1])
    base = np.array([0.6, 0.5, 0.5, 0.0, NAN])
    found = over("j/trace", own, {"base": base})
    reach = 1.959963984540054 * math.sqrt(4 / 3)
    name = "j/trace/over base"
    wanted = {name: 1.0, f"{name}/low": 1 - reach, f"{name}/high": 1 + reach}
    assert found == pytest.approx(wanted)
    assert over("j", own, {}) == {}


def test_what_is_said_of_a_judge():
    """Grades 8 and 2, one of three failed; the right completion has the higher one."""
    found = verdicts_of([0.8, 0.2, NAN], [None, None, "unrated: 'x'"])
    report = grade_metrics("j/a", found, np.array([True, False, True]))
    assert report["j/a"] == pytest.approx(5.0)
    assert report["j/a/failed"] == pytest.approx(1 / 3) == report["j/a/failed/unrated"]
    assert report["j/a/agreement"] == 1.0 and "j/a/cached" not in report


def test_rows():
    found = verdicts_of([0.5, NAN], [None, "x: y"])
    assert grade_rows(EXAMPLES[:2], "j/a", found) == [
        {"id": "0", "by": "j/a", "grade": 5.0, "reason": None, "keys": ["k0"]},
        {"id": "1", "by": "j/a", "grade": None, "reason": "x: y", "keys": ["k1"]},
    ]


def test_by_domain():
    rows = [{"domain": "law"}, {"domain": "sums"}, {"domain": "law"}, {}]
    found = grades_by_domain(rows, {"j/a": np.array([0.2, 0.9, 0.4, NAN])})
    assert list(found) == ["(none)", "law", "sums"]
    assert found["law"]["j/a"] == pytest.approx(3.0) and found["law"]["problems"] == 2
    assert found["(none)"] == {"problems": 1} and found["sums"]["j/a"] == pytest.approx(9.0)
    assert grades_by_domain([{}, {}], {"j/a": np.array([0.2, 0.9])}) == {}


@pytest.mark.parametrize("rubric", ["trace", "answer"])
def test_trace_and_answer_are_asked_apart(rubric):
    own, other = RUBRICS[rubric], RUBRICS["answer" if rubric == "trace" else "trace"]
    (prompt,) = PROMPTS["overall"](EXAMPLES[0], "<answer>2</answer>", own, "nine", 0)
    assert all(one.description in prompt for one in own)
    assert not any(one.description in prompt for one in other)
    word = "reasoning" if rubric == "trace" else "final answer"
    assert all(word in one.description for one in own)


def cells(text):
    lines = text.split("\n")
    assert len({len(line) for line in lines}) == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


STAGE = {"judges": ("j", "k"), "rubrics": ("trace",)}
BASE = {
    "j/trace": 5.0, "j/trace/low": 4.25, "j/trace/high": 5.75, "j/trace/failed": 0.125,
    "j/trace/agreement": 0.75, "j/trace/entropy": 1.5, "k/trace/failed": 1.0,
}  # fmt: skip
LATER = {
    **BASE, "j/trace": 6.5, "j/trace/over base": 1.5, "j/trace/over base/low": -0.25,
    "j/trace/over base/high": 3.25,
}  # fmt: skip


def test_tables():
    grade, ahead, domains = tables({"base": BASE, "rl": LATER}, STAGE)
    got = cells(grade)
    assert got[0] == [
        "after", "judge/rubric", "of 10", "95 % interval", "no verdict", "agreement", "entropy",
    ]  # fmt: skip
    assert got[2] == ["base", "j/trace", "5.00", "4.25 to 5.75", "12.5 %", "0.75", "1.50"]
    assert got[3] == ["base", "k/trace", "", "", "100.0 %", "", ""]
    assert got[4][:3] == ["rl", "j/trace", "6.50"] and len(got) == 6
    got = cells(ahead)
    assert got[2] == ["rl", "base", "j/trace", "1.50", "-0.25 to 3.25"]
    assert got[3] == ["rl", "base", "k/trace", "", ""] and len(got) == 4
    assert domains == "" and tables({"base": BASE}, STAGE)[1] == ""


def test_domains_if_there_are_several():
    of = {"problems": 3, "j/trace": 2.0, "j/trace/low": 1.0, "j/trace/high": 3.0}
    results = {"base": {**BASE, "domains": {"law": of, "sums": {"problems": 4}}}}
    got = cells(tables(results, STAGE)[2])
    assert got[0] == ["domain", "problems", "judge/rubric", "base"]
    assert got[2:] == [
        ["law", "3", "j/trace", "2.00 (1.00 to 3.00)"],
        ["law", "3", "k/trace", ""],
        ["sums", "4", "j/trace", ""],
        ["sums", "4", "k/trace", ""],
    ]
    assert tables({"base": {**BASE, "domains": {"law": of}}}, STAGE)[2] == ""
