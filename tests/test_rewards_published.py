"""Rewards of other public runs, as they were: SVAMP's, Relay's and Gemma3 Reasoning's."""

import random
import re

import pytest

from grpo.rewards import svamp
from grpo.rewards.gemma3_reasoning import gemma3_reasoning
from grpo.rewards.relay import relay, relay_notebook
from tests.test_rewards_demo import R, in_form


def worth(reward, completion, gold="72"):
    return pytest.approx(reward({"answer": gold}, completion))


@pytest.mark.parametrize(
    ("answer", "gold", "of_answer", "of_number"),
    [
        ("72", "72", 3, 2),
        (" 72.0\n", "72", 3, 2),
        ("72.005", "72", 3, 2),
        ("72.5", "72", 1.5, 0),
        ("73", "72", -1, 0),
        ("5", "72", -1, 0),
        ("72 clips", "72", 0, 2),
        ("$72", "72", 0, 2),
        ("1,080", "1080", 0, 0),
        ("-5", "-5", 3, 0),
        ("nan", "72", -1, 0),
        ("inf", "72", -1, 0),
        ("72", "1,080", 0, 0),
        ("72 or 5", "72", 0, 2),
        (".", "72", 0, 0),
    ],
)
def test_svamp_answers(answer, gold, of_answer, of_number):
    assert of_answer == worth(svamp.answer, in_form(answer), gold)
    assert of_number == worth(svamp.number, in_form(answer), gold)


def test_svamp_without_a_form():
    for text in ("72", "<answer>72", "<answer>72</answer>"):
        assert worth(svamp.answer, text) == 0
    assert worth(svamp.number, "<answer>72") == 2 and worth(svamp.number, "72") == 0


@pytest.mark.parametrize(
    ("reasoning", "value"),
    [
        ("", 0),
        ("first, then so", 0.3),
        ("FIRST", 0.1),
        ("so so so", 0.1),
        ("also stepped", 0.2),  # within words
        ("step first next then therefore because since so implies thus hence given", 1.0),
    ],
)
def test_svamp_connectives(reasoning, value):
    assert value == worth(svamp.connectives, in_form("5", reasoning))


@pytest.mark.parametrize(("count", "value"), [(14, 0), (15, 1), (400, 1), (401, 0.5), (0, 0)])
def test_svamp_length(count, value):
    assert value == worth(svamp.length, in_form("5", "so " * count))


@pytest.mark.parametrize(
    ("reasoning", "value"),
    [
        ("3 + 4 = 7", 0),
        ("x + 5", 0.3),
        ("5 * x", 0.3),
        ("x = ", 0.3),
        ("x = 5", 0.6),
        ("2 + x = 5", 0.9),
        ("2 + x = 5 (of them)", 1.2),
        ("(5)", 0),
        ("(of them", 0),
        (") a (", 0),
        ("X + 5", 0),
        ("the total = 7", 0.6),
    ],
)
def test_svamp_algebra(reasoning, value):
    assert value == worth(svamp.algebra, in_form("5", reasoning))


def test_svamp_reads_as_the_original_patterns():
    originals = [r"[a-z]\s*[+\-*/=]\s*\d", r"\d\s*[+\-*/=]\s*[a-z]", r"[a-z]\s*=\s*",
                 r"\([^)]*[a-z][^)]*\)"]  # fmt: skip
    draw = random.Random(0)
    pieces = ["<reasoning>", "</reasoning>", "a", "X", "1", " ", "\n", "+", "=", "(", ")", "-", "z"]
    seen = set()
    for _ in range(10_000):
        part = "".join(draw.choices(pieces, [1, 1] + [3] * 11, k=draw.randrange(30)))
        for text in (part, f"<reasoning>{part}</reasoning>"):
            found = re.search(r"<reasoning>(.+?)</reasoning>", text, re.DOTALL)
            assert svamp.reasoning_of(text) == (found and found[1]), ascii(text)
            expected = 0.3 * sum(bool(re.search(p, found[1])) for p in originals) if found else 0
            assert expected == worth(svamp.algebra, text), ascii(text)
            seen.add(round(expected, 1))
    assert seen == {0, 0.3, 0.6, 0.9, 1.2}


@pytest.mark.parametrize(
    ("completion", "readme", "notebook"),
    [
        (in_form("72", R), 30, 29),  # R has signs and no marker of steps
        (in_form("72", "Step 1: 48/2"), 30, 30),
        (in_form("72", "so"), 29, 27),
        (in_form("70", "so"), 4, 7),  # a near miss
        (in_form("5", "so"), 4, -13),
        (in_form("5", R + " Then"), 5, -10),
        (in_form("72 or 5", "so"), 29, 27),
        (in_form("$72.00", "so"), 29, 27),
        (in_form("1,072", "so"), 4, -13),  # the first number is 1
        (in_form("none", "so"), 4, -3),
        (in_form("", ""), 4, -3),
        ("Okay. " + in_form("72", "so"), 29, 27),
        (in_form("5") + "<answer>72</answer>", -10, -11),  # the first block, and a violation
        ("<answer>72</answer>", 12, -10),
        ("<reasoning>so</reasoning>", -13, -10),
        ("72", -15, -10),
        ("", -15, -10),
        ("</answer><answer>72</reasoning><reasoning>", 4, -3),  # tags in any order
    ],
)
def test_relay(completion, readme, notebook):
    assert worth(relay, completion) == readme
    assert worth(relay_notebook, completion) == notebook


@pytest.mark.parametrize("gold", ["1,080", "two"])
def test_relay_with_a_gold_that_float_does_not_read(gold):
    assert worth(relay, in_form("1080", R), gold) == 5
    assert worth(relay_notebook, in_form("1080", R), gold) == -13


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        (in_form("72", R), 1),
        ("the answer is $72, I think", 1),
        ("it is #### 72 or 5", 1),
        (r"so \boxed{72} it is", 1),
        ("it is 5 and not 72", 1),
        ("it is 1,072 in all", 0.1),
        ("then it is 5", 0.3),
        ("then it is 5.", 0.4),
        ("3 + 4 it is", 0.3),
        ("then it is so!", 0.3),
        ("it is so", 0),
        ("it is so, so", 0),  # a comma is no number
        ("72", 0),  # too short
        ("it is 72 " + "so " * 20, 0),  # repetition
        ("", 0),
    ],
)
def test_gemma3_reasoning(completion, value):
    assert value == worth(gemma3_reasoning, completion)


def test_gemma3_reasoning_finds_what_the_original_patterns_find():
    number = r"([+-]?[\d,]+\.?\d*)"
    cascade = [r"####\s*" + number, r"(?:the\s+)?(?:final\s+)?answer\s+is[:\s]*\$?" + number,
               r"\\boxed\{" + number + r"\}"]  # fmt: skip
    steps = r"(step|then|therefore|because|\d+\s*[+\-*/]\s*\d+)"

    def original(text):
        words = text.split()
        if len(set(words)) / max(len(words), 1) < 0.3 or len(words) < 3:
            return 0.0
        found = next((m for p in cascade if (m := re.search(p, text, re.I))), None)
        numbers = re.findall(number, text)
        said = found[1] if found else (numbers[-1] if numbers else None)
        plain = (said or "").replace(",", "")
        guess = float(plain) if plain.strip("+-.") else None
        if guess is not None and abs(guess - 72) < 1e-3:
            return 1.0
        ends = text.strip().endswith((".", "!", "?", ")"))
        return 0.2 * bool(re.search(steps, text, re.I)) + 0.1 * (guess is not None) + 0.1 * ends

    draw = random.Random(0)
    pieces = ["72", "5", "1,0", ",", "-", "+", " ", " ", "\n", "the answer is", "Final answer is ",
              ": ", "$", "####", "#", "\\boxed{", "}", " then ", " so ", "a ", "b ", ".",
              "٣"]  # fmt: skip
    seen = {}
    for _ in range(20_000):
        text = "".join(draw.choices(pieces, k=draw.randrange(14)))
        expected = original(text)
        assert expected == worth(gemma3_reasoning, text), ascii(text)
        seen[round(expected, 1)] = seen.get(round(expected, 1), 0) + 1
    assert sorted(seen) == [0, 0.1, 0.2, 0.3, 0.4, 1.0] and min(seen.values()) > 100, seen
