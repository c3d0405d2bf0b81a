"""Votes over numbers and over spellings."""

import numpy as np

from grpo.algorithms.accuracy_estimates import NO_ANSWER, maj_at_k
from grpo.evaluation.votes import number_votes, string_votes
from grpo.rewards.correct import correct


def in_form(answer):
    return f"<reasoning>It is so.</reasoning><answer>{answer}</answer>"


def votes(gold, *answers):
    texts = [in_form(answer) for answer in answers]
    right_G = correct([{"answer": gold}] * len(texts), texts)["lenient"]
    return number_votes(texts, right_G).tolist()


def test_equal_numbers_are_one_vote():
    assert votes("5", "1,080", "1080.0", "5", "$1080", "5.00", "7") == [0, 0, 1, 0, 1, 2]
    assert votes("5", "1/2", "0.5", "red", "red ", "blue") == [0, 0, 1, 1, 2]


def test_numbers_vote_exactly():
    """Thirds are no decimals, however many there are of these; halves of 2 ** 60 are not equal."""
    assert votes("5", "1/3", "0.3333333333333333", "2/6") == [0, 1, 0]
    assert votes("5", "1152921504606846977", "1152921504606846976") == [0, 1]


def test_no_answer_is_no_vote():
    texts = ["I do not know.", in_form("5"), ""]
    got = number_votes(texts, np.array([False, True, False]))
    assert got.tolist() == [NO_ANSWER, 0, NO_ANSWER]
    vote_G, right_G = string_votes(texts, "5")
    assert vote_G.tolist() == [NO_ANSWER, 0, NO_ANSWER] and right_G.tolist() == [0, 1, 0]


def test_what_is_right_in_two_ways_is_one_vote():
    """50% and 0.5 and 50 are all the gold's 50%, though not all of them are equal."""
    assert votes("50%", "50%", "0.5", "50", "5") == [0, 0, 0, 1]
    assert votes("right", "right", "wrong") == [0, 1]


def spelt(gold, *answers):
    vote_G, right_G = string_votes([in_form(answer) for answer in answers], gold)
    return vote_G.tolist(), right_G.tolist()


def test_spellings_as_published():
    """Signs of currency, commas, full stops, case and white space say nothing; decimals do."""
    assert spelt("1,080", "1,080", "$1080", "£1080.", "€ 1080", "1080.0") == (
        [0, 0, 0, 0, 1], [1, 1, 1, 1, 0],
    )  # fmt: skip
    assert spelt("Red", "red", "RED.", " Red ", "blue") == ([0, 0, 0, 1], [1, 1, 1, 0])
    assert spelt("35", "3,5", "35") == ([0, 0], [1, 1])  # a flaw that is kept


def test_the_two_votes_differ_where_numbers_are_spelt_in_several_ways():
    """Two spellings of the right answer lose to one of a wrong one, together they win."""
    texts = [in_form(answer) for answer in ("72", "72", "72.0", "$72.00", "5", "5", "5")]
    right_G = correct([{"answer": "72"}] * 7, texts)["lenient"]
    level = np.zeros(7)
    assert maj_at_k(number_votes(texts, right_G), level, right_G, 7) == 1.0
    vote_G, spelt_G = string_votes(texts, "72")
    assert maj_at_k(vote_G, level, spelt_G, 7) == 0.0


def test_whatever_is_written_is_a_vote_or_none():
    hostile = ["\ud800", "<answer>" * 1000, "\x00", "9" * 100_000, in_form("\u202e72"), "$,£€"]
    right_G = np.zeros(len(hostile), bool)
    assert len(number_votes(hostile, right_G)) == len(string_votes(hostile, "7")[0]) == 6
