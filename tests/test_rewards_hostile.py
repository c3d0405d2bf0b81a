"""Hostile completions: no exception, no code, no change of mind, and linear time."""

import gc
import random
import time

import numpy as np
import pytest

from grpo.rewards import extract
from grpo.rewards import format as form
from grpo.rewards.demo import cli_formatted_answer
from grpo.rewards.extract import TAGS, demo_compatible, lenient, strict
from grpo.rewards.given import GIVEN
from grpo.rewards.numbers import parse_number
from grpo.rewards.scores import score
from grpo.rewards.table import PACKAGES, REWARDS
from tests.reward_entries import EXAMPLE, GOLDS, RANGES, TABLE
from tests.test_rewards_numbers import numbers_in

EXTRACTORS = {"strict": strict, "lenient": lenient, "demo": demo_compatible}

PIECES = [
    *TAGS * 3,
    *["72", "1,080", "-5", "$", "%", " ", "\n", "answer is ", "\\boxed{", "}", "1 1/2", "so "],
    "__import__('os').system('touch canary')",
    "open('canary','w')",
    "().__class__.__base__.__subclasses__()",
    "{0.__class__.__init__.__globals__}",
    "%(x)s %n",
    "9**9**9",
    "10000000000!",
    "1e999",
    "nan",
    "inf",
    "1_000",
    "\u0663\u0664",
    "\ud800",
    "\udfff",
    "\0",
    "\u202e",
    "\u200f",
    "\u200b",
    "\ufeff",
    "\x1c",
    "İ",
    "½",
    "²",
    "<answer",
    "</ANSWER>",
    "<reasoning><reasoning>",
    *["48/2=24", "48 + 24 = 72; ", "1+1=3 ", "(", ")", " = ", "×", "\\times", "x", "((((1))))=1"],
    *["9" * 40 + "+1=2", "1/0=1", "**", "2^3", "50% ", "1 1/2+1=2 1/2 "],
    *["42 U.S.C. § 1983", "Brown v. Board", "5 F.2d ", "F. Supp.", " v. ", "§"],
    *["\nIdentify: it ", "\n**Decide** so", "\nExplain", "\n- ", "\n1. "],
    *["mL", " kg", "°C", "mol^-1", "J/(mol·K)", "× 10^23"],
    *[
        "Natalia sold ",
        "clips in May ",
        "therefore ",
        "#### 72",
        "answer is 72",
        "<answer>72</answer>",
    ],
]
BIG = ["9" * 5000, "{" * 10_000, "}" * 10_000, "\\boxed{" * 2000, "1," * 5000, "\n- x" * 3000]
WHOLE = ["9" * 10**6, "<answer>" * 125_000, " 1" * 500_000, "\n" * 10**6, "\ud800" * 10**6]


def hostile(count: int, seed: int) -> list[str]:
    """Random strings of the pieces, some of them within the form, a few of them huge."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count - len(WHOLE)):
        pieces = draw.choices(PIECES, k=draw.randrange(12))
        if draw.random() < 0.01:
            pieces.append(draw.choice(BIG))
        text = "".join(pieces)
        if draw.random() < 0.3:
            text = f"<reasoning>so\n1. it is</reasoning>\n<answer>{text}</answer>"
        elif draw.random() < 0.3:
            answer = draw.choice(["72", "70", "72 L", ""])
            text = f"<reasoning>{text}</reasoning>\n<answer>{answer}</answer>"
        texts.append(text)
    return texts + WHOLE


def test_ten_thousand_hostile_completions(tmp_path, monkeypatch):
    """Finite and in range without exception, twice the same; nothing of them is run."""
    monkeypatch.chdir(tmp_path)
    texts = hostile(10_000, seed=0)
    draw = random.Random(1)
    examples = [EXAMPLE | {"answer": draw.choice(GOLDS)} for _ in texts]
    scores = score(TABLE, examples, texts, seconds=60.0)
    assert scores.reasons == {} and not np.isnan(scores.total).any()
    again = score(TABLE, examples[::-2], texts[::-2], seconds=60.0)
    for name, reward_B in scores.rewards.items():
        np.testing.assert_array_equal(again.rewards[name], reward_B[::-2])
        assert len(set(reward_B)) > 1, name  # the completions do differ to it
    for get in EXTRACTORS.values():
        found = [get(text) for text in texts]
        assert found[::-2] == [get(text) for text in texts[::-2]]
        assert {type(answer) for answer in found} == {str, type(None)}
        assert all(answer is None or answer for answer in found)
    for text in texts:
        number, numbers = parse_number(text), numbers_in(text[:10_000])
        assert number is None or numbers == [number]
    assert list(tmp_path.iterdir()) == []


def test_every_reward_has_its_range():
    assert RANGES.keys() == REWARDS.keys() - GIVEN.keys() - PACKAGES.keys()


def reward_of(name: str):
    """A reward of the table as a function of the completion."""
    return lambda text: score({name: TABLE[name]}, [EXAMPLE], [text], seconds=60.0).total[0]


GOOD = "<reasoning>a</reasoning><answer>7</answer>"
SHAPES = {  # what is repeated, and what stands around it
    "openings": ("<reasoning>", "", ""),
    "reasonings": ("<reasoning>a</reasoning>", "", ""),
    "answers": ("<answer>", "<reasoning>a</reasoning>", ""),
    "closings": ("</answer>x", "<reasoning>a</reasoning><answer>", ""),
    "spaced closings": ("</answer>  ", "<reasoning>a</reasoning><answer>", "x"),
    "good and not": ("<reasoning>a</reasoning><answer>7</answer>x", "x", "x"),
    "line breaks": ("\n", "", "x"),
    "spaces in form": (" ", "<reasoning>a</reasoning><answer>", "x</answer>"),
    "spaces around": (" ", "x", GOOD + "x"),
    "nines": ("9", "<reasoning>a</reasoning><answer>", "x</answer>"),
    "groups": ("111,", "1,", "1111"),
    "ones": ("1 ", "", ""),
    "fractions": ("1/", "", ""),
    "points": ("1.1", "<answer>", ""),
    "signs": ("-$", "", ""),
    "boxes": ("\\boxed{", "", ""),
    "braces": ("{", "\\boxed{", "}"),
    "announcements": ("answer ", "", "is"),
    "announced": ("the answer is ", "", ""),
    "steps": ("\n1", "<reasoning>", "</reasoning><answer>7</answer>"),
    "step of nines": ("9", "<reasoning>\n", "</reasoning><answer>7</answer>"),
    "plans": ("so,", "<reasoning>so</reasoning><answer>", "</answer>"),
    "words": ("so ", "<reasoning>", "</reasoning><answer>7</answer>"),
}
IN_REASONING = {
    name: (piece, f"<reasoning>{before}", f"{after}</reasoning><answer>7</answer>")
    for name, (piece, before, after) in {
        "equations": ("1+1=2 ", "", ""),
        "checkpoint again": ("48/2=24 ", "", ""),
        "chain": ("=1+1", "2", ""),
        "long sum": ("1+", "", "1=2"),
        "minus": ("-", "", "1=2"),
        "open": ("(", "", "=1"),
        "close": (")", "1=", ""),
        "equals": ("=", "1+1", ""),
        "spaces and a sign": (" ", "1", "+"),
        "mixed": ("1 1/2 ", "", ""),
        "unit words": ("1 ab ", "", "+1=2"),
        "bullets": ("\n- ", "", ""),
        "digits of a statute": ("1", "", " U.S.C."),
        "spaces of a statute": (" ", "1 U.S.C.", ""),
        "letters of a case": ("a", "A", " v."),
        "cases": ("Aa v. ", "", ""),
        "supplements": ("1 F. Supp. 2", "", ""),
        "sections": ("§ ", "", ""),
        "spaces of a section": (" ", "§", ""),
        "headings": ("\nIdentify: a", "", ""),
        "marks": ("* ", "\n", "Identify"),
        "parentheses with letters": ("(a", "", ""),
        "algebra": ("a   ", "", "="),
        "hashes": ("#", "", " x"),
        "answer is": ("answer is ", "", ""),
        "commas": (",", "", ""),
        "prompt again": (EXAMPLE["question"], "", ""),
        "quantity": ("9", "</reasoning><answer>", "g</answer>"),
    }.items()
}
CORE = {
    "strict": strict,
    "lenient": lenient,
    "numbers_in": numbers_in,
    "cli_formatted_answer": cli_formatted_answer,
    **{
        name: reward_of(name)
        for name in ("tag_format", "demo_answer", "demo_numbers", "trajectory", "hybrid", "plan")
    },
}
# Of the others those that read all of a long text: equations have a limit of their own.
OF_REASONING = {
    name: reward_of(name)
    for name in (
        "tfidf", "scaffold", "citations", "citations_published", "repetition", "length",
        "svamp_connectives", "svamp_algebra", "gemma3_reasoning", "relay_notebook",
    )
}  # fmt: skip


def shaped(shape: str, size: int) -> str:
    middle, before, after = (SHAPES | IN_REASONING)[shape]
    return before + middle * (size // len(middle)) + after


@pytest.fixture
def no_garbage_collection():
    """Its passes over everything alive come with the objects made, and would be counted."""
    gc.disable()
    yield
    gc.enable()


def seconds(function, text: str) -> float:
    """The processor's time of a call, in this thread."""
    start = time.thread_time()  # what the machine, and XLA's threads, do beside it does not count
    function(text)
    return time.thread_time() - start


@pytest.mark.parametrize("shape", [*SHAPES, *IN_REASONING])
@pytest.mark.usefixtures("no_garbage_collection")
def test_thirty_thousand_characters_take_less_than_fifty_milliseconds(shape):
    text = shaped(shape, 30_000)
    functions = {**{name: reward_of(name) for name in RANGES}, **EXTRACTORS}
    for name, function in functions.items():
        assert min(seconds(function, text) for _ in range(2)) < 0.05, name


@pytest.mark.parametrize("shape", [*SHAPES, *IN_REASONING])
@pytest.mark.usefixtures("no_garbage_collection")
def test_twice_the_length_is_less_than_thrice_the_time(shape, monkeypatch):
    """Without the limit on length, where it takes ten milliseconds or more.

    Where a size begins to need memory that the process has to ask for, one doubling takes long:
    the next one tells that from a time which grows faster than the length at every size.
    """
    monkeypatch.setattr(extract, "LIMIT", 10**9)
    monkeypatch.setattr(form, "LIMIT", 10**9)
    functions = CORE if shape in SHAPES else OF_REASONING
    for name, function in functions.items():
        size = 1 << 15
        while seconds(function, shaped(shape, size)) < 0.01 and size < 1 << 20:
            size *= 2
        for _ in range(3):
            once = min(seconds(function, shaped(shape, size)) for _ in range(3))
            twice = min(seconds(function, shaped(shape, 2 * size)) for _ in range(3))
            if once < 0.01 or twice < 3 * once:
                break
            size *= 2
        else:
            pytest.fail(f"{name}: {size // 2} characters take {once:.3f} s, {size} {twice:.3f} s")
