"""Dropping without cutting, and never in silence."""

import pytest

from grpo.data.examples import DataError
from grpo.data.filters import keep_short, require_disjoint, require_kept


def examples(*questions: str, part: str = "train"):
    return [{"id": f"{part}:{n}", "question": q} for n, q in enumerate(questions, start=1)]


def test_what_is_too_long_is_dropped_not_cut():
    rows = examples("a", "abc", "abcd", "ab")
    kept, ratio = keep_short(rows, lambda example: len(example["question"]), 3)
    assert (kept, ratio) == ([rows[0], rows[1], rows[3]], 0.75)


def test_nothing_to_keep():
    assert keep_short([], len, 3) == ([], 0.0)


@pytest.mark.parametrize(
    ("ratio", "threshold", "message"),
    [
        (0.0103, 0.5, "glaive: 1.0% of the examples are kept, 50.0% are needed"),
        (0.0, 0.0, "glaive: 0.0% of the examples are kept, 0.0% are needed"),
        (float("nan"), 0.5, "glaive: nan% of the examples are kept, 50.0% are needed"),
    ],
)
def test_too_few_are_kept(ratio, threshold, message):
    with pytest.raises(DataError, match=rf"\A{message}\Z"):
        require_kept(ratio, threshold, "glaive")


def test_enough_are_kept():
    require_kept(0.5, 0.5, "glaive")


def test_test_questions_among_the_training_ones():
    train = examples("How  many\neggs?", "One?", "Two?")
    named = "mine", "test", "the training ones"
    require_disjoint(train, examples("Three?", "How many egg?"), *named)
    with pytest.raises(DataError) as caught:
        require_disjoint(train, examples("Three?", "two?", "how many eggs?", part="test"), *named)
    assert str(caught.value) == (
        "mine: 2 test questions are among the training ones: test:2 is train:3; test:3 is train:1"
    )
