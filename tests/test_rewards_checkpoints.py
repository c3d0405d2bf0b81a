"""Rewards by checkpoints: as published, with its flaws, and by equations."""

import math

import pytest

from grpo.rewards.checkpoints import checkpoints_equations, checkpoints_substring
from tests.reward_entries import EXAMPLE
from tests.test_rewards_demo import in_form

OPTIONS = {"match": "equation", "wrong": 0.0, "cap": 1.0, "without": None, "strict": True}


def substring(reasoning, *checkpoints):
    return checkpoints_substring({"checkpoints": checkpoints}, in_form("5", reasoning))


def equations(reasoning, answer="72", checkpoints=("48/2=24", "48+24=72"), **options):
    example = EXAMPLE | {"checkpoints": list(checkpoints)}
    return checkpoints_equations(example, in_form(answer, reasoning), **OPTIONS | options)


def test_the_published_one_with_its_flaws():
    assert substring("4*2=8 and 8+1=9", "4*2=8", "8+1=9") == 0.4
    assert substring("4 * 2 = 8", "4*2=8") == substring("4 × 2 = 8", "4*2=8") == 0
    assert substring("120-170", "20-17") == 0.2
    assert substring("b a", "a", "b") == 0.4  # in any order
    assert substring("a", "a", "a") == 0.4  # the same place twice
    assert substring("abcdefghij", *"abcdefghij") == 2.0  # more checkpoints pay more
    assert substring("a") == substring("") == substring("", "a") == 0
    assert checkpoints_substring({"checkpoints": ["a"]}, "a</reasoning>") == 0


@pytest.mark.parametrize(
    ("reasoning", "share"),
    [
        ("48/2=24, 48+24=72", 1),
        ("48 ÷ 2 = $24.00, then 24 + 48 = 72 clips", 1),
        ("48/2=24", 1 / 2),
        ("48+24=72, 48/2=24", 1 / 2),  # out of order
        ("48/2=24 48/2=24 48/2=24", 1 / 2),  # each once
        ("48/2=24, 1+1=2, 48+24=72", 1),
        ("48/2 = 25, 48+24 = 72", 1 / 2),
        ("48*0.5=24, 48+24=72", 1 / 2),  # another way to 24
        ("148/2=74, 48+24=720", 0),
        ("48/2 48+24 24 72", 0),
        ("24, 72", 0),
        ("", 0),
    ],
)
def test_equations_in_order(reasoning, share):
    assert equations(reasoning) == pytest.approx(share)


def test_stuffing_costs():
    """A list of all that might be asked for: hits over half of what is stated."""
    numbers = (2, 3, 24, 48)
    every = [f"{a}+{b}={a + b}" for a in numbers for b in numbers if a <= b]
    every += [f"{a}*{b}={a * b}" for a in numbers for b in numbers if a <= b]
    stuffed = "; ".join(["48/2=24", *every])  # 21 different ones, 24+48=72 among them
    assert equations(stuffed) == pytest.approx(2 / (21 / 2))
    assert equations("48/2=24, 48+24=72, 1+1=2, 2+2=4") == 1
    assert equations("48/2=24, 48+24=72, 1+1=2, 2+2=4, 3+3=6") == pytest.approx(0.8)


def test_the_same_checkpoint_twice_asks_for_two():
    twice = ("1+1=2", "1+1=2")
    assert equations("1+1=2", checkpoints=twice) == 0.5
    assert equations("1+1=2; 1+1=2", checkpoints=twice) == 1


def test_by_value():
    other_way = "48*0.5=24, 24+24=48, 24*3=72"
    assert equations(other_way) == 0
    assert equations(other_way, match="value") == 1
    assert equations("48*0.5=24.5", match="value") == 0
    assert equations("24 and 72", match="value") == 0
    assert equations("1+1=24, 48+24=72", match="value") == 0.5  # only what holds is a hit


def test_wrong_equations_cost():
    reasoning = "48/2=24, 48+24=72, 1+1=3, 2+2=5, 2+2=5"
    assert equations(reasoning, wrong=0.0) == 1
    assert equations(reasoning, wrong=0.2) == pytest.approx(0.6)
    assert equations(reasoning, wrong=0.6) == 0
    assert equations("1+1=3", wrong=1.0) == 0


def test_a_wrong_answer_has_a_part_of_the_credit():
    """With weights alike, never as much as a right answer, whatever the working is."""
    both = "48/2=24, 48+24=72"
    assert equations(both, answer="70", cap=0.4) == pytest.approx(0.4)
    assert equations("48/2=24", answer="70", cap=0.4) == pytest.approx(0.2)
    assert equations(both, answer="70", cap=0.0) == 0
    assert equations(both, answer="72", cap=0.0) == 1
    said = f"<reasoning>{both}</reasoning> so 72"
    got = [
        checkpoints_equations(EXAMPLE, said, **OPTIONS | {"cap": 0.4, "strict": strict})
        for strict in (True, False)
    ]
    assert got == pytest.approx([0.4, 1.0])


def test_examples_without_checkpoints():
    for none in ((), ("The train is late.",), ("72 = 72",)):
        assert math.isnan(equations("48/2=24", checkpoints=none))
        assert equations("48/2=24", checkpoints=none, without=0.25) == 0.25
    mixed = ("The train is late.", "48/2=24")
    assert equations("48/2=24", checkpoints=mixed) == 1
