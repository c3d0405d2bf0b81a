"""Rules and facts: the answer again from the text alone, and citations that stand in it."""

import re

import pytest

from grpo.data.legal import LEVELS
from grpo.data.making import make
from grpo.data.worlds import WORLDS

WORLD = {
    level: make("legal", WORLDS["legal"], 0, 300, [level], "train", 1.0, 0.0) for level in LEVELS
}
RULES = {  # what a condition says of a fact
    r"at (\d+) or more": (r"is (\d+)\.", lambda n, limit: n >= limit),
    r"with (\d+) bags or less": (r"has (\d+) bags\.", lambda n, limit: n <= limit),
    r"with (\d+) points or more": (r"has (\d+) points\.", lambda n, limit: n >= limit),
}


def judged(question):
    """By the text alone: (fact, number, limit, whether it holds) of every condition."""
    ((rule, name),) = re.findall(r"Rule: \w+ (.*)\. May (\w+) \w+\?$", question)
    found = []
    for pattern, (fact, holds) in RULES.items():
        for limit in re.findall(pattern, rule):
            (n,) = re.findall(rf"{name} {fact}", question)
            (text,) = re.findall(rf"{name} {fact.replace('(', '').replace(')', '')}", question)
            found.append((text, int(n), int(limit), holds(int(n), int(limit))))
    assert len(found) == rule.count(",") + 1
    return found


def test_these_never_change():
    first = WORLD[1][0]
    assert first["question"] == (
        "[1] Dan has 8 bags. [2] Zoe has 4 bags. Rule: play with 8 bags or less. May Zoe play?"
    )
    assert (first["answer"], first["reasoning"]) == ("yes", '[2] "Zoe has 4 bags." 4<=8')
    assert first["question"] == f"{first['context']} May Zoe play?"
    assert first["problem"] == "bags 4 8" and first["checkpoints"] == ["4<=8"]


@pytest.mark.parametrize("level", LEVELS)
def test_answers_follow_from_the_text(level):
    for example in WORLD[level]:
        found = judged(example["question"])
        assert len(found) == LEVELS[level]["conditions"]
        assert example["answer"] == ("yes" if all(holds for *_, holds in found) else "no")
        for _, n, limit, holds in found:
            both = re.compile(rf"{n}([<>=]+){limit}")
            (sign,) = (found[1] for c in example["checkpoints"] if (found := both.fullmatch(c)))
            assert {"<": n < limit, ">": n > limit, "<=": n <= limit, ">=": n >= limit}[sign]
            assert n >= 1 and abs(n - limit) <= 9 and (sign in ("<", ">")) != holds


@pytest.mark.parametrize("level", LEVELS)
def test_citations_stand_in_the_context(level):
    for example in WORLD[level]:
        facts = dict(re.findall(r"\[(\d)\] ([^\[]+?\.)(?= |$)", example["context"]))
        assert len(facts) == LEVELS[level]["facts"] and [*facts] == [*"123"][: len(facts)]
        cited = re.findall(r"\[(\d)\]", example["reasoning"])
        decide = [fact for fact, *_ in judged(example["question"])]
        assert sorted(facts[number] for number in cited) == sorted(decide)
        quoted = re.findall(r'"([^"]+)"', example["reasoning"])
        assert quoted == ([facts[cited[0]]] if level < 3 else [])
        assert all(quote in example["context"] for quote in quoted)


@pytest.mark.parametrize("level", LEVELS)
def test_half_of_the_answers_are_yes_whatever_stands_beside(level):
    answers = [example["answer"] for example in WORLD[level]]
    assert 115 < answers.count("yes") < 185
    first = [e["answer"] for e in WORLD[level] if "[1]" in e["reasoning"]]
    assert 0.3 < first.count("yes") / len(first) < 0.7


def test_every_way_of_failing_two_conditions_is_there():
    ways = {tuple(holds for *_, holds in judged(example["question"])) for example in WORLD[3]}
    assert len(ways) == 4
