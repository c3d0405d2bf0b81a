"""Worked solutions made worse: by hand, and what holds for every one of them."""

import numpy as np
import pytest

from grpo.data.corruptions import CORRUPTIONS, corrupted, deleted, number, shuffled, steps_of


def draws(function, text, count=200):
    return {function(text, np.random.RandomState(seed)) for seed in range(count)}


def test_steps():
    assert steps_of("1+2=3; 3+4=7") == (["1+2=3", "3+4=7"], ["; "])
    assert steps_of("a; b\n c") == (["a; b", "c"], ["\n "])
    assert steps_of("He has 2.5 kg. So 3! Or?") == (["He has 2.5 kg.", "So 3!", "Or?"], [" ", " "])
    assert steps_of("so 7") == (["so 7"], [])


def test_a_number_is_another_one():
    assert draws(number, "so 1") == {f"so {n}" for n in range(11) if n != 1}
    assert draws(number, "12") == {str(n) for n in range(3, 22) if n != 12}
    assert {str(text).endswith("+5") for text in draws(number, "1+5")} == {True, False}
    assert draws(number, "none") == {None}


def test_a_step_is_missing():
    assert draws(deleted, "a; b;  c") == {"b; c", "a; c", "a; b"}
    assert draws(deleted, "so 7") == {None}


def test_steps_in_another_order():
    assert draws(shuffled, "a; b") == {"b; a"}
    assert draws(shuffled, "a\nb\nc") == {"a\nc\nb", "b\na\nc", "b\nc\na", "c\na\nb", "c\nb\na"}
    assert draws(shuffled, "a; a") == draws(shuffled, "a") == {None}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_only_the_reasoning_changes(kind):
    text = "<reasoning>\n5+6=11; 11-6=5\n</reasoning> <answer>5</answer>"
    for seed in range(50):
        worse = corrupted(text, kind, np.random.RandomState(seed))
        assert worse is not None and worse != text
        assert worse.startswith("<reasoning>\n")
        assert worse.endswith("\n</reasoning> <answer>5</answer>")


@pytest.mark.parametrize("text", ["", "5", "<reasoning></reasoning>", "<reasoning>1", "<answer>1"])
def test_what_cannot_be_made_worse(text):
    for kind in CORRUPTIONS:
        assert corrupted(text, kind, np.random.RandomState(0)) is None
