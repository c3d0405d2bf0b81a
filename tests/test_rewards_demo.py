"""The reproduced rewards: the golden table, and the originals' patterns."""

import random
import re

import pytest

from grpo.rewards import demo
from grpo.rewards.demo import cli_formatted_answer, formatted_answer
from grpo.rewards.extract import demo_compatible
from grpo.rewards.scores import score
from grpo.rewards.table import reward_table
from grpo.rewards.trajectory import block

R = (
    "Natalia sold 48 clips in April and half as many clips in May, so 48 / 2 = 24, and "
    "48 + 24 = 72 clips."
)
FLAGS = re.MULTILINE | re.DOTALL
FORMAT = re.compile(r"^\s*<reasoning>.+?</reasoning>.*?<answer>(.+?)</answer>\s*$", FLAGS)
CLI = re.compile(r"<reasoning>.+?</reasoning>.*?<answer>(.+?)(?:</answer>|$)", FLAGS)
NUMBERS = re.compile(r"<answer>.*?([\d.]+)", FLAGS)
BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

TABLE = reward_table(
    [
        {"name": "demo_exact_format", "weight": 1, "low": 0, "high": 3},
        {"name": "demo_approximate_format", "weight": 1, "low": -2, "high": 2},
        {"name": "demo_approximate_format_5", "weight": 0, "low": -2.5, "high": 2.5},
        {"name": "demo_answer", "weight": 1, "low": -1, "high": 3},
        {"name": "demo_numbers", "weight": 1, "low": 0, "high": 1.5},
        {"name": "trajectory", "weight": 0, "low": 0, "high": 2.1},
        {"name": "hybrid", "weight": 0, "low": 0, "high": 2.6},
    ]
)
COLUMNS = list(TABLE)


def in_form(answer, reasoning=R):
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


GOLDEN = [  # gold, completion: exact, approximate, with 5, answer, numbers, sum, trajectory, hybrid
    ("72", in_form("72"), 3, 2, 2.5, 3, 1.5, 9.5, 2.1, 1.8),
    ("72", in_form("\n72\n"), 3, 2, 2.5, 1.5, 1.5, 8.0, 2.1, 1.8),
    ("72", "Okay.\nLet us see.\n" + in_form("72"), 3, 2, 1.5, 3, 1.5, 9.5, 2.1, 1.8),
    ("72", "Okay. " + in_form("72"), 0, 2, 1.5, 0, 1.5, 3.5, 2.1, 0.9),
    ("72", in_form("72") + " done", 0, 2, 2.5, 0, 1.5, 3.5, 2.1, 0.9),
    ("72", in_form("72") + "\nI am done.", 3, 2, 2.5, 3, 1.5, 9.5, 2.1, 1.8),
    ("72", in_form("72 clips"), 3, 2, 2.5, -0.5, 1.5, 6.0, 0.9, 0.9),
    ("72", in_form("$72"), 3, 2, 2.5, -0.5, 1.5, 6.0, 0.9, 0.9),
    ("72", in_form("72.0"), 3, 2, 2.5, 0.5, 1.5, 7.0, 0.9, 1.8),
    ("72", in_form("70"), 3, 2, 2.5, 0.5, 0, 5.5, 0.9, 0.9),
    ("72", in_form("60"), 3, 2, 2.5, 0.25, 0, 5.25, 0.9, 0.9),
    ("72", in_form("5"), 3, 2, 2.5, -1, 0, 4.0, 0.9, 0.9),
    ("1,080", in_form("1080"), 3, 2, 2.5, -0.5, 0, 4.5, 0.9, 0.9),
    ("1,080", in_form("1,080"), 3, 2, 2.5, 3, 0, 8.0, 2.1, 0.9),
    ("1080", in_form("1,080"), 3, 2, 2.5, -0.5, 0, 4.5, 0.9, 0.9),
    ("-5", in_form("-5"), 3, 2, 2.5, 3, 0, 8.0, 2.1, 1.8),
    ("0", in_form("3"), 3, 2, 2.5, -0.5, 0, 4.5, 0.9, 0.9),
    ("72", in_form("72").removesuffix("</answer>"), 0, 1, 1.5, 0, 1.5, 2.5, 0.9, 0.0),
    ("72", "<answer>72</answer>", 0, 0, -0.5, 0, 1.5, 1.5, 1.2, 0.9),
    ("72", in_form("72", "."), 3, 2, 2.5, 3, 1.5, 9.5, 1.2, 1.8),
    ("72", in_form("5") + "<answer>72</answer>", 3, 0, 0.5, -0.5, 0, 2.5, 0.9, 0.9),
    ("72", in_form("72 or 5 or 9"), 3, 2, 2.5, -0.5, 1.5, 6.0, 0.9, 0.9),
    ("72", "The answer is 72.", 0, -2, -2.5, 0, 0, -2.0, 0, 0),
    ("72", in_form("5", "so " * 21), 3, 2, 2.5, -1, 0, 4.0, 0.9, 0.9),
    ("72", in_form("5", "\n- x" * 8), 3, 2, 2.5, -1, 0, 4.0, 0.0, 1.7),
]


@pytest.mark.parametrize(("gold", "completion", "golden"), [(g, c, row) for g, c, *row in GOLDEN])
def test_golden_table(gold, completion, golden):
    assert len(R.split()) == 26
    scores = score(TABLE, [{"answer": gold}], [completion], seconds=5.0)
    row = [scores.rewards[name][0] for name in COLUMNS]
    assert [*row[:5], scores.total[0], *row[5:]] == pytest.approx(golden, abs=1e-12)


@pytest.mark.parametrize(
    ("gold", "completion", "exact", "answer", "numbers"),
    [
        ("72", in_form("72"), 3, 3, 1.5),
        ("72", in_form("\n72\n"), 3, 3, 1.5),
        ("72", in_form(" 72.0 "), 3, 3, 1.5),
        ("1,080", in_form("1080"), 3, 3, 1.5),
        ("1080", in_form("1,080"), 3, 3, 0),
        ("0", in_form("3"), 3, -1, 0),
        ("0", in_form("0.0"), 3, 3, 1.5),
        ("72", in_form("70"), 3, 0.5, 0),
        ("72", in_form("60"), 3, 0.25, 0),
        ("72", in_form("5"), 3, -1, 0),
        ("72", in_form("72 clips"), 3, -0.5, 1.5),
        ("72", "Okay. " + in_form("72") + " done", 3, 3, 1.5),
        ("72", in_form("72").removesuffix("</answer>"), 3, 3, 1.5),
        ("72", in_form("72\nclips"), 3, 3, 1.5),
        ("72", in_form("\n\n72"), 3, -0.5, 1.5),
        ("72", in_form("").removesuffix("</answer>"), 0, 0, 0),
        ("72", "<answer>72</answer>", 0, 0, 1.5),
    ],
)
def test_the_command_line_version(gold, completion, exact, answer, numbers):
    example = {"answer": gold}
    assert demo.cli_exact_format(example, completion) == exact
    assert demo.cli_answer(example, completion) == answer
    assert demo.cli_numbers(example, completion) == numbers


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("٧٢", "72", 0.5),
        ("7_2", "72", 0.5),
        ("nan", "72", -1),
        ("1e999", "72", -1),
        ("9" * 5000, "72", -1),
        ("inf", "inf", 3),
        ("\ud800", "72", -0.5),
        ("65", "72", 0.5),
        ("64.8", "72", 0.25),  # the ratio is 0.8999999999999999
        ("79.2", "72", 0.5),
        ("79.3", "72", 0.25),
        ("86.5", "72", -1),
    ],
)
def test_what_float_reads(answer, gold, value):
    assert demo.answer({"answer": gold}, in_form(answer)) == value


def group(pattern, text):
    found = pattern.search(text)
    return found and found[1]


def test_the_same_matches_as_the_original_patterns():
    """Random strings over the tags: where and what each pattern finds."""
    draw = random.Random(0)
    tags = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
    others = ["\n", "\n", " ", "a", "7", ".5", "٣", "\r", "\t", "\x1c", "</answer", "<answer>\n"]
    found = dict.fromkeys(["format", "cli", "numbers", "block"], 0)
    for _ in range(20_000):
        if draw.random() < 0.5:
            pieces = draw.choices(tags + others, k=draw.randrange(14))
        else:  # near the form
            pieces = [piece for tag in tags for piece in (tag, *draw.choices(others, k=2))]
            pieces.insert(draw.randrange(12), draw.choice(tags + others))
            pieces = draw.choices(others, k=draw.randrange(2)) + pieces
        text = "".join(pieces)
        expected = [group(p, text) for p in (FORMAT, CLI, NUMBERS, BLOCK)]
        for name, value in zip(found, expected, strict=True):
            found[name] += value is not None
        assert [
            formatted_answer(text),
            cli_formatted_answer(text),
            demo_compatible(text),
            block(text, "<answer>", "</answer>"),
        ] == expected, ascii(text)
    assert min(found.values()) > 2000, found


def hybrid_of(reasoning, answer="5", gold="72"):
    return score(TABLE, [{"answer": gold}], [in_form(answer, reasoning)], seconds=5.0).rewards[
        "hybrid"
    ][0]


def test_steps_and_words_of_the_hybrid():
    """0.9 for the form; 0.12 a step, those of the first line uncounted; 0.2 for over 50 words."""
    assert hybrid_of("1. a\n2. b\n- c\n-d\n33.") == pytest.approx(0.9 + 4 * 0.12)
    assert hybrid_of("so " * 50) == pytest.approx(0.9)
    assert hybrid_of("so " * 51) == pytest.approx(1.1)
    assert hybrid_of("\n- x" * 100) == pytest.approx(1.7)
    assert hybrid_of("a", answer=" 72.0\n") == pytest.approx(1.8)


def test_twenty_words_are_too_few_for_the_trajectory():
    values = [
        score(TABLE, [{"answer": "72"}], [in_form("5", "so " * n)], seconds=5.0).rewards[
            "trajectory"
        ][0]
        for n in (20, 21)
    ]
    assert values == pytest.approx([0, 0.9])
