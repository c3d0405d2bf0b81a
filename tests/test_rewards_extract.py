"""The three extractors side by side, and the rewards that stand on them."""

import random

import pytest

from grpo.rewards import extract
from grpo.rewards.answer import correct_answer
from grpo.rewards.extract import LIMIT, TAGS, demo_compatible, lenient, strict
from grpo.rewards.format import strict_format, tag_format

R = "<reasoning>It is so.</reasoning>"
GOOD = f"{R}<answer>72</answer>"


@pytest.mark.parametrize(
    ("completion", "by_strict", "by_lenient", "by_demo", "tags"),
    [
        (GOOD, "72", "72", "72", 4),
        (f"\n {R}\n\n<answer>\n72 clips\n</answer>\n", "72 clips", "72 clips", "72", 4),
        (f"{R}<answer>-5</answer>", "-5", "-5", "5", 4),
        (f"{R}<answer>1,080</answer>", "1,080", "1,080", "1", 4),
        (f"{R}<answer>72 or 5 or 9</answer>", "72 or 5 or 9", "72 or 5 or 9", "72", 4),
        (f"{R}<answer>It is $72.</answer>", "It is $72.", "$72.", "72.", 4),
        (f"{R}<answer>It is 5 or 72</answer>", "It is 5 or 72", "It is 5 or 72", "5", 4),
        (f"{R}<answer>maybe</answer>", "maybe", "maybe", None, 4),
        (f"Okay. {R}<answer>72</answer>", None, "72", "72", 3),
        (f"Okay.\n{R}<answer>72</answer>", None, "72", "72", 3),
        (f"{GOOD} done", None, "72", "72", 3),
        (f"{R} so <answer>72</answer>", None, "72", "72", 3),
        (f"{R}<answer>5</answer><answer>72</answer>", None, "72", "5", 2),
        (f"{R}{R}<answer>72</answer>", None, "72", "72", 1),
        (f"<reasoning>{R}<answer>72</answer>", None, "72", "72", 2),
        (f"{R}<answer> </answer>", None, None, None, 3),
        (f"{R}<answer>72</answer><answer> ", None, "72", "72", 2),
        ("<reasoning> </reasoning><answer>72</answer>", None, "72", "72", 3),
        (f"{R}<answer>72", None, "72", "72", 3),
        (f"{R}", None, None, None, 2),
        (f"{R}72", None, "72", None, 2),
        ("<answer>72</answer>", None, "72", "72", 1),
        (f"<answer>72</answer>{R}", None, "72", "72", 1),
        ("<reasoning>a</answer></reasoning><answer>72", None, "72", "72", 3),
        ("<reasoning>a<answer>72</answer></reasoning>", None, "72", "72", 2),
        ("</answer><answer>72</reasoning><reasoning>", None, "72</reasoning><reasoning>", "72", 0),
        ("The answer is 72.", None, "72", None, 0),
        ("The ANSWER  is: **$1,080** of 5", None, "$1,080", None, 0),
        ("Final answer:\n-5 (in May 2020)", None, "-5", None, 0),
        ("The answer is 5. No: the answer is 7, of 9", None, "7", None, 0),
        ("The answer is clear." + "." * 150 + " 5 and 6", None, "6", None, 0),
        ("so \\boxed{5} and \\boxed{\\text{all {72}}} 3", None, "72}}", None, 0),
        ("so \\boxed{72 then 3", None, "3", None, 0),
        ("48 + 24 = 72 clips", None, "72", None, 0),
        ("50% of it", None, "50%", None, 0),
        ("<answer>٣</answer>", None, "٣", "٣", 1),
        ("<answer>x</answer> 5", None, "x", "5", 0),
        ("no number", None, None, None, 0),
        ("", None, None, None, 0),
    ],
)
def test_side_by_side(completion, by_strict, by_lenient, by_demo, tags):
    assert (strict(completion), lenient(completion)) == (by_strict, by_lenient)
    assert demo_compatible(completion) == by_demo
    assert strict_format({}, completion) == (by_strict is not None)
    assert tag_format({}, completion) == tags / 4


def test_tag_format_is_whole_exactly_where_the_form_is_strict():
    pieces = random.Random(0)
    whole = 0
    for _ in range(20_000):
        order = list(TAGS) if pieces.random() < 0.8 else pieces.choices(TAGS, k=4)
        text = pieces.choice(["", " ", "a", "\n"])
        for i, tag in enumerate(order):
            text += tag + pieces.choice((" ", "a", "") if i % 2 else ("a", "a", "a", " "))
        whole += tag_format({}, text) == 1
        assert (tag_format({}, text) == 1) == (strict_format({}, text) == 1) == bool(strict(text))
    assert 1000 < whole < 10_000


def test_long_completions(monkeypatch):
    """At LIMIT characters there is a form, beyond it none; the end is still read."""
    head, tail = "<reasoning>", f" 5</reasoning>{' ' * 10}<answer>72</answer>"
    exact = head + "a" * (LIMIT - len(head) - len(tail)) + tail
    assert strict(exact) == "72" and tag_format({}, exact) == 1
    assert strict(exact + " ") is None and tag_format({}, exact + " ") == 0
    assert lenient(exact * 3) == demo_compatible(exact * 3) == "72"
    assert lenient("5 " + "a" * LIMIT) is None
    monkeypatch.setattr(extract, "LIMIT", 2 * LIMIT)
    assert strict(exact + " ") == "72"


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("72", "72", 1),
        ("\n72\n", "72", 1),
        ("72 clips", "72", 1),
        ("$72.00", "72", 1),
        ("1,080", "1080", 1),
        ("1080", "1,080", 1),
        ("-5", "-5", 1),
        ("5", "-5", 0),
        ("70", "72", 0),
        ("72 or 5 or 9", "72", 0),
        ("72 or 5 or 9", "9", 0),
        ("3", "0", 0),
        ("nan", "0", 0),
        ("٧٢", "72", 0),
    ],
)
def test_correct_answer(answer, gold, right):
    """In form it counts either way, out of form where that is not strict only."""
    example, completion = {"answer": gold}, f"{R}<answer>{answer}</answer>"
    assert correct_answer(example, completion, strict=True) == right
    assert correct_answer(example, completion, strict=False) == right
    assert correct_answer(example, "Okay. " + completion, strict=True) == 0
    assert correct_answer(example, "Okay. " + completion, strict=False) == right


@pytest.mark.parametrize("gold", ["", "unknown", "72 or 5"])
@pytest.mark.parametrize("completion", [GOOD, "", f"{R}<answer></answer>"])
def test_a_gold_that_is_no_number_is_an_error(gold, completion):
    with pytest.raises(ValueError, match="no number"):
        correct_answer({"answer": gold}, completion, strict=True)
