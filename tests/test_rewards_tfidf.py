"""Words: repetition, length, and the relevance of a vocabulary."""

import math
import random

import pytest

from grpo.rewards.tfidf import Frequencies, document_frequencies, terms, tfidf, without_copies
from grpo.rewards.words import length, ngrams, repetition
from tests.test_rewards_demo import in_form

EXAMPLE = {"question": "Why do leaves fall?", "reasoning": "cold light water", "answer": "auxin"}
OPTIONS = {
    "kind": "word", "n": 1, "stop_words": True, "sublinear": True, "target": "reference",
    "copied": 8, "words": 100, "penalty": 0.0,
}  # fmt: skip
EVEN = Frequencies(0, {})  # every idf is 1


def relevance(reasoning, example=EXAMPLE, fitted=EVEN, **options):
    return tfidf(example, in_form("5", reasoning), fitted=fitted, **OPTIONS | options)


@pytest.mark.parametrize(
    ("text", "kind", "n", "share"),
    [
        ("a b c d", "word", 1, 0),
        ("a b a b", "word", 1, 1 / 2),
        ("a b a b", "word", 2, 1 / 3),
        ("A, b! a; B.", "word", 2, 1 / 3),
        ("so " * 100, "word", 3, 97 / 98),
        ("a b", "word", 3, 0),
        ("", "word", 1, 0),
        ("<>!?", "word", 1, 0),
        ("aaaa", "word", 1, 0),
        ("aaaa", "char", 2, 2 / 3),
        ("ab\n\tab", "char", 2, 1 / 4),  # ab, b_, _a, ab
        ("多多多多", "char", 1, 3 / 4),
    ],
)
def test_repetition(text, kind, n, share):
    assert repetition({}, text, kind=kind, n=n) == pytest.approx(share)


@pytest.mark.parametrize(
    ("count", "value"), [(0, 0), (1, 0.2), (5, 1), (10, 1), (11, 10 / 11), (100, 0.1)]
)
def test_length(count, value):
    assert length({}, "so " * count, least=5, most=10) == pytest.approx(value)


def test_cosine_by_hand():
    """Four terms of the target, each of weight 1, and a reasoning of two of them and another."""
    assert relevance("cold water stone") == pytest.approx(2 / math.sqrt(3 * 4))
    assert relevance("cold light water auxin") == pytest.approx(1)
    assert relevance("auxin WATER light cold") == pytest.approx(1)
    assert relevance("the cold of the water") == pytest.approx(2 / math.sqrt(2 * 4))
    assert relevance("the cold", stop_words=False) == pytest.approx(1 / math.sqrt(2 * 4))
    assert relevance("stone") == relevance("") == relevance("?!") == 0
    assert tfidf(EXAMPLE, "cold water", fitted=EVEN, **OPTIONS) == 0


def test_counts_are_dampened():
    """cold thrice and water once: 1 + log 3 and 1, or 3 and 1."""
    for sublinear, cold in ((True, 1 + math.log(3)), (False, 3.0)):
        expected = (cold + 1) / (math.sqrt(cold**2 + 1) * 2)
        assert relevance("cold cold cold water", sublinear=sublinear) == pytest.approx(expected)


def test_rare_terms_weigh_more():
    """In 3 of 3 documents: log 4/4 + 1; in none: log 4/1 + 1."""
    fitted = Frequencies(3, {("cold",): 3, ("light",): 3, ("water",): 3})
    rare = 1 + math.log(4)
    norm = math.sqrt(3 + rare**2)
    assert relevance("auxin", fitted=fitted) == pytest.approx(rare / norm)
    assert relevance("cold", fitted=fitted) == pytest.approx(1 / norm)


def test_what_is_learnt_of_the_training_examples():
    train = [
        EXAMPLE,
        {"question": "Cold?", "reasoning": None, "answer": "Very cold"},
        {"question": "The?", "answer": "auxin"},
    ]
    got = document_frequencies(train, OPTIONS)
    assert got.documents == 3
    assert got.count == {
        ("why",): 1, ("leaves",): 1, ("fall",): 1, ("cold",): 2, ("light",): 1, ("water",): 1,
        ("auxin",): 2,
    }  # fmt: skip
    assert document_frequencies(train[::-1], OPTIONS) == got
    pairs = document_frequencies(train[1:], OPTIONS | {"n": 2, "stop_words": False})
    assert pairs.count[("very", "cold")] == 1 and ("cold", "very") in pairs.count
    letters = document_frequencies(train[2:], OPTIONS | {"kind": "char", "n": 3})
    assert ("a", "u", "x") in letters.count


def test_terms():
    assert terms("It is so. The cat, the HAT!", kind="word", n=2, stop_words=True) == [
        ("cat", "hat")
    ]
    assert terms("a  b", kind="char", n=2, stop_words=True) == [("a", " "), (" ", "b")]


def test_targets():
    prompt = "leaves fall"
    assert relevance(prompt, target="reference") == 0
    assert relevance(prompt, target="prompt_and_reference") == pytest.approx(2 / math.sqrt(2 * 7))
    assert relevance("cold", target="prompt_and_reference") == pytest.approx(1 / math.sqrt(7))
    minus = EXAMPLE | {"question": "Why is it cold and dark?"}
    assert relevance("cold", minus, target="reference") == pytest.approx(1 / 2)
    assert relevance("cold", minus, target="reference_minus_prompt") == 0
    assert relevance("light", minus, target="reference_minus_prompt") == pytest.approx(3**-0.5)
    said = EXAMPLE | {"question": "cold light water auxin"}
    assert math.isnan(relevance("cold", said, target="reference_minus_prompt"))
    alone = {"question": "Why?", "answer": "auxin"}
    assert relevance("auxin", alone) == pytest.approx(1)


def test_copying_the_prompt_earns_nothing():
    question = "Ann walks six miles on Monday and nine miles on Friday. How far is it?"
    example = EXAMPLE | {"question": question}
    options: dict = {"target": "prompt_and_reference"}
    assert relevance(question, example, **options) == 0
    with_a_word = relevance(f"{question} cold", example, **options)
    assert with_a_word == pytest.approx(relevance("cold", example, **options)) and with_a_word > 0
    assert relevance(question, example, copied=99, **options) > 0.7
    in_parts = "Ann walks six miles. On Monday, nine miles. On Friday: how far?"
    assert relevance(in_parts, example, **options) > 0.5  # no run of eight words


def test_copies_are_left_out_as_runs():
    source = "a b c d e"
    assert without_copies("x A b, C d y", source, 3) == "x y"
    assert without_copies("x a b y c d", source, 3) == "x a b y c d"
    assert without_copies("a b c x c d e", source, 3) == "x"
    assert without_copies("a b c d e a b", source, 3) == "a b"
    assert without_copies("", source, 1) == "" and without_copies("a z", source, 1) == "z"


def test_long_and_repeated_reasoning_is_worth_less():
    target = "cold light water auxin"
    assert relevance(target, words=4) == pytest.approx(1)
    assert relevance(target, words=2) == pytest.approx(1 / 2)
    assert relevance(f"{target} {target}", words=100) == pytest.approx(1)
    # 8 words have 6 3-grams, 2 of which are there twice.
    assert relevance(f"{target} {target}", penalty=0.3) == pytest.approx(1 - 0.3 * 2 / 6)
    often = relevance(f"{target} " * 50, penalty=0.5, words=200)
    assert often == pytest.approx(1 - 0.5 * 194 / 198)
    assert relevance("stone " * 50, penalty=1.0) == 0


def test_random_reasonings_are_in_range():
    draw = random.Random(0)
    words = ["cold", "light", "water", "auxin", "why", "leaves", "fall", "the", "of", "stone"]
    values = set()
    for _ in range(300):
        text = " ".join(draw.choices(words, k=draw.randrange(30)))
        for kind, n in (("word", 1), ("word", 2), ("char", 3)):
            values.add(relevance(text, kind=kind, n=n, target="prompt_and_reference", words=9))
    assert all(0 <= value <= 1 for value in values) and len(values) > 100


def test_ngrams():
    assert ngrams("abcd", 2) == [("a", "b"), ("b", "c"), ("c", "d")] and ngrams("a", 2) == []
