"""The repaired trajectory and hybrid: the golden completions, and what no longer pays."""

from typing import Literal

import pytest

from grpo.rewards.steps import hybrid_steps, trajectory_steps
from tests.reward_entries import EXAMPLE
from tests.test_rewards_demo import GOLDEN, R, in_form

Steps = Literal["equations", "checkpoints"]
NO_ANSWER = "<reasoning>48/2 = 24</reasoning>"
# Of the golden completions in their order. R has two equations, and both hold: v = 1 with R, and
# the terms of 60 and 40 are 0.6 and 0.4. hybrid: 0.1 for the strict form, 0.3 v, 0.6 right.
WORTH = [  # trajectory, hybrid: strict; the same: lenient
    (1.0, 1.0, 1.0, 1.0),  # 72
    (1.0, 1.0, 1.0, 1.0),  # on its own lines
    (0.6, 0.3, 1.0, 0.9),  # preamble lines: no strict form, so no strict answer
    (0.6, 0.3, 1.0, 0.9),  # preamble on the same line
    (0.6, 0.3, 1.0, 0.9),  # " done"
    (0.6, 0.3, 1.0, 0.9),  # chatter
    (1.0, 1.0, 1.0, 1.0),  # 72 clips
    (1.0, 1.0, 1.0, 1.0),  # $72
    (1.0, 1.0, 1.0, 1.0),  # 72.0
    (0.6, 0.4, 0.6, 0.4),  # 70
    (0.6, 0.4, 0.6, 0.4),  # 60
    (0.6, 0.4, 0.6, 0.4),  # 5
    (1.0, 1.0, 1.0, 1.0),  # 1,080: 1080
    (1.0, 1.0, 1.0, 1.0),  # 1,080: 1,080
    (1.0, 1.0, 1.0, 1.0),  # 1080: 1,080
    (1.0, 1.0, 1.0, 1.0),  # -5
    (0.6, 0.4, 0.6, 0.4),  # 0: 3
    (0.6, 0.3, 1.0, 0.9),  # no </answer>
    (0.0, 0.0, 0.4, 0.6),  # answer only
    (0.4, 0.7, 0.4, 0.7),  # reasoning "."
    (0.6, 0.3, 1.0, 0.9),  # two answer blocks
    (0.6, 0.4, 0.6, 0.4),  # 72 or 5 or 9
    (0.0, 0.0, 0.4, 0.6),  # The answer is 72.
    (0.0, 0.1, 0.0, 0.1),  # 21 x so
    (0.0, 0.1, 0.0, 0.1),  # 8 bullets
]
PLAIN = {"least": 1, "about_question": False, "strict": True}


def trajectory_of(completion, gold="72", process=0.6, **options):
    example = EXAMPLE | {"answer": gold}
    return trajectory_steps(example, completion, process=process, **PLAIN | options)


def hybrid_of(completion, gold="72", steps: Steps = "equations", **options):
    return hybrid_steps(EXAMPLE | {"answer": gold}, completion, steps=steps, **PLAIN | options)


@pytest.mark.parametrize(
    ("gold", "completion", "worth"),
    [(gold, text, worth) for (gold, text, *_), worth in zip(GOLDEN, WORTH, strict=True)],
)
def test_golden_completions(gold, completion, worth):
    got = [
        reward(completion, gold, strict=strict)
        for strict in (True, False)
        for reward in (trajectory_of, hybrid_of)
    ]
    assert got == pytest.approx(worth, abs=1e-12)


def test_length_and_wording_change_nothing():
    short = in_form("5", "48/2 = 24")
    long = in_form("5", "So, first of all, we look at it. " * 50 + "48/2 = 24. " + "so " * 100)
    again = in_form("5", "48/2 = 24 " * 100)
    assert trajectory_of(short) == trajectory_of(long) == trajectory_of(again) == 0.6


@pytest.mark.parametrize(
    ("reasoning", "options", "share"),
    [
        ("48/2 = 24, 48+24 = 72", {}, 1.0),
        ("48/2 = 24, 48+24 = 73", {}, 0.5),
        ("48/2 = 24, 48+24 = 73, 48+24 = 73, 48/2 = 24, 48/2=24", {}, 0.5),
        ("48/2 = 24", {"least": 4}, 0.25),
        ("48/2 = 24, 24*1=24, 48+24=72, 72-0=72, 72+1=73", {"least": 4}, 1.0),
        ("1+1 = 2, 2+2 = 4, 3+3 = 6", {}, 1.0),
        ("1+1 = 2, 2+2 = 4, 3+3 = 6", {"about_question": True}, 0.0),
        ("48/2 = 24, 1+1 = 3", {"about_question": True}, 1.0),
        ("48/2 = 25, 1+1 = 2", {"about_question": True}, 0.0),
        ("- x\n- y\n- z", {}, 0.0),
        ("", {}, 0.0),
    ],
)
def test_share_of_equations_that_hold(reasoning, options, share):
    assert trajectory_of(in_form("5", reasoning), **options) == pytest.approx(0.6 * share)
    assert trajectory_of(in_form("5", reasoning), process=1.0, **options) == pytest.approx(share)


def test_equations_elsewhere_are_not_reasoning():
    assert trajectory_of("48/2=24 <answer>5 48+24=72</answer>") == 0
    assert trajectory_of(NO_ANSWER + "<reasoning>1+1=3</reasoning>") == 0.6
    assert trajectory_of("<reasoning></reasoning><reasoning>48/2=24</reasoning>") == 0


def test_a_wrong_answer_never_reaches_a_right_one():
    """The hybrid's best wrong completion, and its poorest right one in the lenient reading."""
    wrong = [in_form("5", R), in_form("5", R + "1+1=2"), in_form("5", "\n- x" * 99), NO_ANSWER]
    right = ["72", "<answer>72</answer>", in_form("72", "1+1=3"), in_form("72", ".")]
    assert max(map(hybrid_of, wrong)) <= 0.4 < 0.6 <= min(hybrid_of(x, strict=False) for x in right)


def test_checkpoints_as_steps():
    half = in_form("5", "48/2 = 24, 1+1 = 2")
    assert hybrid_of(half, steps="checkpoints") == pytest.approx(0.1 + 0.15)
    assert hybrid_of(half, steps="equations") == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no checkpoints that are equations"):
        hybrid_steps(EXAMPLE | {"checkpoints": ["so"]}, half, steps="checkpoints", **PLAIN)
