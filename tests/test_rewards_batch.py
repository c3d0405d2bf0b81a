"""One reward function on a batch: both kinds, their options, and what fails of them."""

import itertools
import math
import time

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.rewards.batch import each, options_of, values
from grpo.rewards.scores import score
from grpo.rewards.table import REWARDS, reward_table

NAN = float("nan")
LATE = "grpo.rewards.deadline.DeadlineError"
EXAMPLES = [{"id": name, "answer": name} for name in "aabb"]
TEXTS = ["x", "xxx", "xx", ""]


def told_by(reward, *, seconds=5.0, texts=TEXTS, low=0.0, high=9.0) -> tuple[np.ndarray, str]:
    """The values, and the first reason, "" without one."""
    value_B, why = values(reward, EXAMPLES, texts, low=low, high=high, seconds=seconds)
    return value_B, why or ""


def rank(examples, completions, *, factor: float):
    """Of how many completions of its example this one is as long or longer, times the factor."""
    pairs = [
        (example["id"], len(text)) for example, text in zip(examples, completions, strict=True)
    ]
    return [factor * sum(x == a and y <= b for x, y in pairs) for a, b in pairs]


@pytest.fixture
def table_of(monkeypatch):
    def make(name, reward, **options):
        monkeypatch.setitem(REWARDS, name, reward)
        line = {"name": name, "weight": 1.0, "low": 0.0, "high": 9.0, "options": options}
        return reward_table([line])

    return make


def test_a_batch_is_seen_as_a_whole_and_options_arrive(table_of):
    for factor, expected in ((1.0, [1, 2, 2, 1]), (2.5, [2.5, 5, 5, 2.5])):
        scores = score(table_of("rank", rank, factor=factor), EXAMPLES, TEXTS, seconds=5.0)
        np.testing.assert_array_equal(scores.rewards["rank"], expected)
        np.testing.assert_array_equal(scores.total, expected)
        assert scores.failed == {"rank": 0} and scores.reasons == {}


def test_options_of_the_simple_kind_arrive(table_of):
    def letters(example, completion, *, letter: str, most: int = 9):
        return min(completion.count(letter), most)

    for options, expected in (
        ({"letter": "x"}, [1, 3, 2, 0]),
        ({"letter": "x", "most": 2}, [1, 2, 2, 0]),
        ({"letter": "y"}, [0, 0, 0, 0]),
    ):
        table = table_of("letters", each(letters), **options)
        scores = score(table, EXAMPLES, TEXTS, seconds=5.0)
        np.testing.assert_array_equal(scores.rewards["letters"], expected)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, np.float32, jnp.array])
def test_values_come_in_any_row(kind):
    value_B, why = told_by(lambda examples, completions: kind([0.0, 1.0, 2.5, 9.0]))
    np.testing.assert_array_equal(value_B, [0, 1, 2.5, 9])
    assert value_B.dtype == np.float64 and why == ""


@pytest.mark.parametrize(
    ("got", "expected", "why"),
    [
        ([0, NAN, 2, NAN], [0, NAN, 2, NAN], "ValueError: abstained: returned nan"),
        ([9.5, 1, -1, 2], [NAN, 1, NAN, 2], "ValueError: returned 9.5, outside [0.0, 9.0]"),
        ([None, 1, "2", True], [NAN, 1, NAN, NAN], "TypeError: returned NoneType, no number"),
        ([0, lambda: 1, lambda: 1 / 0, 3], [0, 1, NAN, 3], "ZeroDivisionError: division by zero"),
        ([1, 2, 3], [NAN] * 4, "ValueError: returned 3 values for 4 completions"),
        ([1, 2, 3, 4, 5], [NAN] * 4, "ValueError: returned 5 values for 4 completions"),
        ("1234", [NAN] * 4, "TypeError: returned str, expected 4 values"),
        (1.0, [NAN] * 4, "TypeError: returned float, expected 4 values"),
        (None, [NAN] * 4, "TypeError: returned NoneType, expected 4 values"),
        (dict.fromkeys(range(4)), [NAN] * 4, "TypeError: returned dict, expected 4 values"),
        (np.ones((4, 1)), [NAN] * 4, "TypeError: returned ndarray, no number"),
        (np.array(1.0), [NAN] * 4, "TypeError: "),
    ],
)
def test_what_fails_of_a_batch(got, expected, why):
    value_B, first = told_by(lambda examples, completions: got)
    np.testing.assert_array_equal(value_B, expected)
    assert first.startswith(why)


def test_a_batch_function_that_raises_has_no_values(table_of):
    def broken(examples, completions):
        raise KeyError("gone")

    table = table_of("broken", broken) | table_of("rank", rank, factor=1.0)
    scores = score(table, EXAMPLES, TEXTS, seconds=5.0)
    assert np.isnan(scores.rewards["broken"]).all() and np.isnan(scores.total).all()
    assert scores.failed == {"broken": 4, "rank": 0}
    assert scores.reasons == {"broken": "KeyError: 'gone'"}
    np.testing.assert_array_equal(scores.rewards["rank"], [1, 2, 2, 1])


def test_a_batch_has_the_time_of_all_its_completions():
    def slow(examples, completions):
        time.sleep(0.3)
        return [1.0] * len(completions)

    np.testing.assert_array_equal(told_by(slow, seconds=0.2)[0], [1, 1, 1, 1])
    value_B, why = told_by(slow, seconds=0.02)
    assert np.isnan(value_B).all() and why == f"{LATE}: took more than 0.08 seconds"


def test_each_completion_has_a_time_of_its_own():
    """One that hangs costs the others nothing, however many are quick."""

    def hangs(example, completion):
        while completion == "xxx":
            pass
        time.sleep(0.1)
        return len(completion)

    value_B, why = told_by(each(hangs), seconds=0.25)
    np.testing.assert_array_equal(value_B, [1, NAN, 2, 0])
    assert why == f"{LATE}: took more than 0.25 seconds"


def test_a_value_that_is_late_is_not_the_next_ones():
    """Even where time is up before the function is called."""
    value_B, _ = told_by(each(lambda example, text: len(text)), seconds=1e-6)
    expected = np.array([1.0, 3.0, 2.0, 0.0])
    assert all(math.isnan(x) or x == y for x, y in zip(value_B, expected, strict=True))


def test_what_is_given_cannot_be_sorted():
    def sorts(examples, completions):
        completions.sort()
        return [1.0] * len(completions)

    texts = list(TEXTS)
    assert told_by(sorts, texts=texts)[1].startswith("AttributeError") and texts == TEXTS


def test_the_first_reason_of_the_batch_is_kept():
    reasons = itertools.count()
    assert told_by(each(lambda example, text: [][next(reasons)] if text else {}["x"]))[
        1
    ].startswith("IndexError")


def test_options_are_what_comes_after_the_two():
    def simple(example, completion, letter, *, most=3):
        return 0.0

    def learns(examples, completions, *, factor, fitted):
        return []

    assert list(options_of(learns)) == ["factor"]
    assert list(options_of(each(simple))) == ["letter", "most"]
    assert list(options_of(rank)) == ["factor"]
    assert options_of(each(lambda example, completion: 0.0)) == {}


def test_every_reward_takes_a_batch():
    """And its options are keywords, each of which is known."""
    for name, reward in REWARDS.items():
        kinds = {parameter.kind for parameter in options_of(reward).values()}
        assert kinds <= {parameter.KEYWORD_ONLY for parameter in options_of(reward).values()}, name
