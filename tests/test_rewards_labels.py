"""Scaffolds, labels and citations: what counts, and what is done to get it for nothing."""

import random
import re

import pytest

from grpo.rewards.citations import citations, citations_published, cited_in
from grpo.rewards.labels import label_match
from grpo.rewards.scaffold import scaffold
from tests.test_rewards_demo import in_form

HEADINGS = ("Identify", "Decide", "Explain")


def in_place(reasoning, headings=HEADINGS):
    return 3 * scaffold({}, in_form("5", reasoning), headings=headings)


@pytest.mark.parametrize(
    ("reasoning", "held"),
    [
        ("Identify: a\nDecide: b\nExplain: c", 3),
        ("Identify\na\nDecide\nb\n\nExplain\nc", 3),
        ("1. **Identify:** a\n2) **Decide** b\n### Explain c", 3),
        ("- IDENTIFY - a\n  > decide: b\n\t* Explain: 3", 3),
        ("so\nIdentify: a\nbecause\nExplain: b", 2),
        ("Decide: a\nIdentify: b\nExplain: c", 2),  # the longest part that is in order
        ("Explain: a\nDecide: b\nIdentify: c", 1),
        ("Identify: a\nIdentify: b\nDecide: c\nExplain: d", 2),  # once, not twice
        ("Identify:\nDecide:\nExplain:", 0),  # nothing in them
        ("Identify: \n- \n* ...\nDecide: b\nExplain", 1),
        ("Identify: Decide: Explain: a", 1),  # a heading begins a line
        ("we Identify: a\nand Decide: b", 0),
        ("Identifying: a\nDecided: b\nExplains: c", 0),
        ("Identify Decide Explain " * 50, 1),
        ("\n".join(HEADINGS * 50), 0),
        ("", 0),
    ],
)
def test_scaffold(reasoning, held):
    assert in_place(reasoning) == pytest.approx(held)


def test_scaffold_reads_the_first_reasoning_only():
    text = "Identify: a\nDecide: b\nExplain: c"
    assert scaffold({}, text, headings=HEADINGS) == 0
    assert scaffold({}, f"<reasoning>a</reasoning>{in_form('5', text)}", headings=HEADINGS) == 0


def test_the_longer_of_two_headings():
    headings = ("Step 1", "Step 1 again", "Step 10")
    assert in_place("Step 1: a\nStep 1 again: b\nStep 10: c", headings) == pytest.approx(3)
    assert in_place("Step 1 again: b", headings) == pytest.approx(1)


def labelled(completion, gold="B", labels=("A", "B", "C"), strict=False):
    return label_match({"answer": gold}, completion, labels=labels, strict=strict)


@pytest.mark.parametrize("answer", ["B", " b\n", "(B)", "B.", "**B**", "[B]", '"b"', "B)", "<B>"])
def test_the_label(answer):
    assert labelled(in_form(answer)) == labelled(in_form(answer), strict=True) == 1


@pytest.mark.parametrize(
    "answer",
    ["A", "A or B", "A, B, C", "B C", "B or not", "option B", "B: Paris", "BB", "", "not B", "В"],
)
def test_not_the_label(answer):
    assert labelled(in_form(answer)) == labelled(in_form(answer), strict=True) == 0


def test_labels_and_form():
    two = in_form("A") + "<answer>B</answer>"
    other_way_round = in_form("B") + "<answer>A</answer>"
    every = "".join(f"<answer>{label}</answer>" for label in "ABC")
    for text in (
        two,
        other_way_round,
        every,
        "B",
        "The answer is B.",
        "<answer>B",
        "B</answer>",
        "<answer></answer>",
    ):
        assert labelled(text) == labelled(text, strict=True) == 0
    chatty = "Okay. " + in_form("B")
    assert labelled(chatty) == 1 and labelled(chatty, strict=True) == 0
    assert labelled(in_form("Maybe."), "maybe", ("yes", "no", "maybe")) == 1
    assert labelled(in_form("New  York"), "new york", ("New York", "Rome")) == 1


def test_a_gold_that_is_no_label_abstains():
    with pytest.raises(ValueError, match="is no label: 'D'"):
        labelled(in_form("D"), "D")


# The same forms without regard for time: a volume, a reporter, perhaps its series, a page.
VOLUME, SERIES, PAGE = r"\d+\s+", r"\s*\d*d?", r"\s+\d+"
NAME = "[A-Z][a-z]+"
PLAIN = [
    *(VOLUME + reporter + PAGE for reporter in (r"U\.S\.", r"F\.\d+d", r"S\.\s*Ct\.")),
    *(VOLUME + reporter + SERIES + PAGE for reporter in (r"F\.\s*Supp\.", r"L\.\s*Ed\.")),
    VOLUME + r"U\.S\.C\.\s+§?\s*\d+",
    rf"{NAME}\s+v\.\s+{NAME}",
    r"§\s*\d[\d.]*",
]


def by_plain_patterns(text):
    count = sum(len(re.findall(pattern, text, re.IGNORECASE)) for pattern in PLAIN)
    return min(1.0, 0.7 + 0.1 * (count - 1)) if count else 0.0


def test_the_published_citations_are_those_of_plain_patterns():
    draw = random.Random(0)
    pieces = ["12", "3", " ", "  ", "\n", "U.S.C.", "U.S.", "F.", "2d", "3D", "d", "Supp.", "Aa",
              "bb", "v.", "V.", "§", ".", "S.", "Ct.", "L.", "Ed.", "é", "٣"]  # fmt: skip
    forms = ["1 U.S.C. § 2", "1 U.S. 2", "1 F.2d 3", "1 F. Supp. 2d 3", "Aa v. Bb", "§ 1.2",
             "9 S. Ct. 8", "7 L. Ed. 2d 6", "1 F.Supp. 2"]  # fmt: skip
    seen = {}
    for _ in range(20_000):
        parts = draw.choices(pieces, k=draw.randrange(12))
        for _ in range(draw.randrange(4)):
            parts.insert(draw.randrange(len(parts) + 1), draw.choice(forms))
        text = "".join(parts)
        got = citations_published({}, text)
        assert got == pytest.approx(by_plain_patterns(text)), ascii(text)
        seen[round(got, 1)] = seen.get(round(got, 1), 0) + 1
    assert sorted(seen) == [0, 0.7, 0.8, 0.9, 1.0] and min(seen.values()) > 20, seen


CONTEXT = "Under 42 U.S.C. § 1983, and Brown v. Board, 347 U.S. 483 (1954); see § 12."


def grounded(text):
    return citations({"context": CONTEXT}, text)


def test_invented_citations():
    """What the published one pays in full is worth nothing."""
    invented = "See 1 U.S. 2, 3 U.S. 4, Aa v. Bb and 5 F.2d 6."
    assert citations_published({}, invented) == 1.0 and grounded(invented) == 0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("By 42 U.S.C. §  1983.", 1),
        ("By 42 U.S.C.\n§ 1983 and 347 U.S. 483.", 1),
        ("Brown v. Board holds.", 1),
        ("§ 12 applies.", 1),
        ("42 U.S.C. § 1983 and 42 U.S.C. § 1984", 1 / 2),
        ("42 U.S.C. § 1983; " * 9 + "1 U.S. 2", 1 / 2),  # each once
        ("§ 1983", 0),  # only a piece of the context's
        ("42 U.S.C. § 19", 0),
        ("347 U.S. 48", 0),
        ("brown v. board", 0),
        ("", 0),
        ("I cite nothing.", 0),
    ],
)
def test_citations_of_the_context(text, share):
    assert grounded(text) == pytest.approx(share)


def test_citations_need_a_context():
    for example in ({}, {"context": None}):
        with pytest.raises(ValueError, match="no context"):
            citations(example, "§ 12")
    assert citations({"context": ""}, "§ 12") == 0
    assert cited_in("42 U.S.C. § 1983") == {"42 U.S.C. § 1983"}
