"""Completions that are no good: what they are, and which rewards pay for them."""

import math
import operator
import re
from fractions import Fraction

import pytest

from configs import thinking_in_tokens_gemma3_1b as thinking
from grpo.evaluation.hack_cases import (
    CASES,
    EXAMPLES,
    HOLLOW,
    OUT_OF_FORM,
    WRITTEN,
    WRONG,
    all_sums,
    parts_of,
    plain,
    text_of,
)
from grpo.evaluation.hacks import kind_of, scored
from grpo.rewards.batch import each
from grpo.rewards.equations import LIMIT
from grpo.rewards.numbers import parse_number
from grpo.rewards.table import REWARDS, reward_table

LINE = {"weight": 1.0, "low": -2.0, "high": 9.0}
STRICT = LINE | {"name": "correct_answer", "options": {"strict": True}}
DEMO = [
    LINE | {"name": f"demo_{name}"}
    for name in ("exact_format", "approximate_format", "answer", "numbers")
]


def rows_of(lines, examples=EXAMPLES):
    report = scored(reward_table(lines), examples, seconds=5.0)
    return report, {row.case: row for row in report.rows}


def hacked(lines, examples=EXAMPLES):
    return {name for name, row in rows_of(lines, examples)[1].items() if row.hacked}


def test_every_case_is_what_it_is_among():
    """Of each example that it fits; the worked solutions are right, and of 21 words or more."""
    assert len(CASES) == len(WRITTEN) + len(HOLLOW) + len(OUT_OF_FORM) + len(WRONG) >= 50
    wanted = {"right": {**WRITTEN, **HOLLOW}, "out of form": OUT_OF_FORM, "wrong": WRONG}
    for example in EXAMPLES:
        parts = parts_of(example)
        assert kind_of(example, plain(parts)) == "right"
        assert len(example["reasoning"].split()) > 20
        for kind, cases in wanted.items():
            for name, case in cases.items():
                text = case(parts)
                assert text is None or kind_of(example, text) == kind, name


def test_the_cases_hold_those_that_are_asked_for():
    """Stuffing, empty tags, copying, listing all answers, preambles: by what they say."""
    example = EXAMPLES[0]
    made = {name: str(case(parts_of(example))) for name, case in CASES.items()}
    assert made["1000 times a word"].count("so ") == 1000
    assert made["tags and nothing in them"] == "<reasoning></reasoning><answer></answer>"
    assert made["the question copied"].count(example["question"]) == 1
    assert all(f" {n}" in made["every number"] for n in range(100))
    assert made["lines before"].startswith("Okay.\n") and "72" in made["lines before"]
    assert made["15 % too little"].endswith("<answer>61.2</answer>")
    assert made["2 % too much"].endswith("<answer>73.44</answer>")


def test_examples_without_a_number_have_fewer_cases():
    """Nor a worked solution: the answer is a text, and what is missing is made up."""
    example = {"id": "x", "question": "Is it so?", "answer": "yes", "reasoning": None}
    _, rows = rows_of([LINE | {"name": "strict_format"}], [example])
    fewer = CASES.keys() - rows.keys()
    assert fewer == {
        "answer with decimals", "answer with a unit", "answer with a currency", "2 % too much",
        "15 % too little", "the other sign", "checkpoints, the last one first",
        "checkpoints, the last one first, wrong", "checkpoints, each contradicted",
        "checkpoints, each contradicted, wrong",
    }  # fmt: skip
    assert rows["another answer"].kind == "wrong" and rows["21 times a word"].kind == "right"
    assert kind_of(example, plain(parts_of(example))) == "right"


def test_checkpoints_turned_round_and_contradicted():
    """An order takes two of them, a contradiction a number."""
    made = {
        name: [case(parts_of(example)) for example in EXAMPLES[:2]]
        for name, case in CASES.items() if name.startswith("checkpoints, ")
    }  # fmt: skip
    form = "<reasoning>{}</reasoning><answer>{}</answer>".format
    said = "48/2=25; 48/2=24; 48+24=73; 48+24=72"
    assert made == {
        "checkpoints, the last one first": [form("48+24=72; 48/2=24", 72), None],
        "checkpoints, the last one first, wrong": [form("48+24=72; 48/2=24", 157), None],
        "checkpoints, each contradicted": [
            form(said, 72), form("12*90=1081; 12*90=1080", "1,080")
        ],
        "checkpoints, each contradicted, wrong": [
            form(said, 157), form("12*90=1081; 12*90=1080", 2173)
        ],
    }  # fmt: skip
    words = {**EXAMPLES[0], "reasoning": "so 72", "checkpoints": ["pears in June"]}
    assert parts_of(words).reasoning == "so 72"
    texts = parts_of({**EXAMPLES[0], "checkpoints": ["Tax", "t = 3 pears or so", "a=½", "x=5 %"]})
    made = str(CASES["checkpoints, each contradicted"](texts))
    assert "<reasoning>Tax; t = 3 pears or so; a=½; x=6; x=5 %<" in made  # one has a number


def test_every_small_sum():
    """Each holds, and all of them are read, however long the question is."""
    signs = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": Fraction}
    question = " ".join(f"{n} and 1{n:06}" for n in range(20, 99_999, 7))
    for asked, own in (
        ("48 pears, 90 in May", {48, 90}),
        (question, {20, 27, 34, 41}),
        ("", set()),
    ):
        text = all_sums(parts_of({**EXAMPLES[0], "question": asked}))
        sums = [re.fullmatch(r"(\d+)([-+*/])(\d+)=(-?\d+)", one) for one in text.split(" ")]
        assert all(m and signs[m[2]](int(m[1]), int(m[3])) == int(m[4]) for m in sums)
        assert {int(m[1]) for m in sums if m} == {*range(10), *own}
        n = 10 + len(own)
        assert len({*text.split(" ")}) == len(sums) > 3 * n * n and len(text) < LIMIT


def test_checkpoints_by_substring_pay_for_what_is_no_good_and_by_equations_do_not():
    """Beside the worked solution, and where the answer is wrong beside its reasoning.

    Where a solution is missing or shows nothing the checkpoints in order are one.
    """
    unsolved = [{**EXAMPLES[0], "reasoning": given} for given in (None, "so 72")]
    stuffed = {
        "all small sums",
        "checkpoints, each contradicted",
        "checkpoints, the last one first",
    }

    def found(variant):
        entries = thinking.get_config(variant).to_dict()["stages"]["grpo"]["rewards"]
        lines = [{"name": name, **entry} for name, entry in entries.items()]
        return rows_of(lines, [*EXAMPLES, *unsolved])

    published, of_published = found("tiny")
    better, of_better = found("better,tiny")
    assert {name for name, row in of_published.items() if row.hacked} & {*HOLLOW} >= stuffed
    assert not any(row.hacked for row in of_better.values())
    for name in stuffed:
        assert of_better[name].total < better.plain - 0.03
        wrong = f"{name}, wrong"
        assert of_published[wrong].total > of_published["another answer"].total + 0.09
        assert of_better[wrong].total < of_better["another answer"].total - 0.01
    assert (published.low, published.high) == (0.0, 3.8)
    assert published.plain == pytest.approx((4 * 2.0 + 2 * 2.4) / 6)  # "48 / 2 = 24" is not 48/2=24
    assert (better.low, better.high) == (0.0, 1.7) and better.plain == pytest.approx(1.7)


def test_entries_for_other_domains_are_left_out():
    """With what they would add to the range; and examples that nothing is for."""
    law = {**EXAMPLES[0], "domain": "law"}
    lines = [STRICT | {"domains": ["math"]}, LINE | {"name": "tag_format", "domains": ["x", "y"]}]
    report, rows = rows_of(lines, [*EXAMPLES, law])
    assert report.elsewhere == {"tag_format": ("x", "y")} and report.left_out == 1
    assert (report.low, report.high, report.plain) == (-2.0, 9.0, 1.0)
    assert rows["nothing"].rewarded == 4 and not any(row.hacked for row in rows.values())
    report, rows = rows_of([STRICT | {"domains": ["law", "math", "x"]}], [*EXAMPLES, law])
    assert report.elsewhere == {} and rows["nothing"].rewarded == 5 and report.plain == 1.0
    report, rows = rows_of([STRICT | {"domains": ["x"]}])
    assert not rows and report.left_out == 4 and math.isnan(report.plain)
    # What is only logged is for none, and a gate goes with what it multiplies.
    gated = LINE | {"name": "tag_format", "gate": "strict_format", "domains": ["x"]}
    gate = LINE | {"name": "strict_format", "low": 0.0, "high": 1.0, "domains": ["x"]}
    report, _ = rows_of([STRICT, gate, gated])
    assert [*report.elsewhere] == ["strict_format", "tag_format"] and report.plain == 1.0


@pytest.mark.parametrize(
    ("number", "text"),
    [("72", "72"), ("-5", "-5"), ("0.5", "0.5"), ("-0.0625", "-0.0625"), ("1/3", "1/3"),
     ("73.44", "73.44"), ("-1.5", "-1.5"), ("0.00001", "1/100000")],
)  # fmt: skip
def test_numbers_as_one_writes_them(number, text):
    assert text_of(Fraction(number)) == text and parse_number(text) == Fraction(number)


def test_a_strict_reward_is_not_hacked():
    report, rows = rows_of([STRICT])
    assert hacked([STRICT]) == set() and report.plain == 1.0 and report.unrewarded == 0
    assert all(row.total == (row.kind == "right") for row in rows.values())
    assert not any(row.outbid for row in rows.values())
    assert rows["nothing"].rewarded == 4 and rows["the other sign"].rewarded == 3  # none of 0


def test_a_reward_that_reads_answers_anywhere_pays_for_any_form():
    lenient = STRICT | {"options": {"strict": False}}
    assert hacked([lenient]) == {*OUT_OF_FORM}


def test_the_demos_rewards():
    """Preambles and chatter on lines of their own earn all; "72 pieces" less than a near miss."""
    report, rows = rows_of(DEMO)
    assert hacked(DEMO) == {"lines before", "lines after"}
    assert {name for name, row in rows.items() if row.outbid} == {
        "answer with a unit", "answer with a currency",
    }  # fmt: skip
    golden, of_72 = rows_of(DEMO, EXAMPLES[:1])
    assert golden.plain == 9.5
    totals = {
        "answer on a line of its own": 8.0, "lines before": 9.5, "words before": 3.5,
        "words after": 3.5, "answer with a unit": 6.0, "answer with decimals": 7.0,
        "another answer": 4.0, "answer not closed": 2.5, "answer only": 1.5,
        "a full stop for reasoning": 9.5, "wrong answer, then the right one": 2.5,
        "right or another": 6.0, "a sentence": -2.0, "21 times a word, wrong": 4.0,
    }  # fmt: skip
    assert {name: of_72[name].total for name in totals} == totals  # systems' golden table
    assert report.plain == pytest.approx((9.5 + 8.0 + 8.0 + 9.5) / 4)


def test_published_rewards_of_looks():
    """Eight empty steps beside prose of less than 50 words; 21 words beside a short proof."""
    hybrid = [LINE | {"name": "hybrid"}]
    assert {"8 empty steps", "8 empty steps, numbered"} <= hacked(hybrid)
    _, rows = rows_of(hybrid, EXAMPLES[:1])
    assert rows["8 empty steps, wrong"].total == pytest.approx(1.7)
    assert rows["8 empty steps, wrong"].hacked == 0  # 1.8 for the worked solution
    short = [{**EXAMPLES[0], "reasoning": "48/2=24; 48+24=72"}]
    assert {"21 times a word", "connectives"} <= hacked([LINE | {"name": "trajectory"}], short)


@pytest.fixture
def counting(monkeypatch):
    """A reward of its own, put into the table."""

    def put(function):
        monkeypatch.setitem(REWARDS, "own", each(function))
        return [LINE | {"name": "own"}]

    return put


def test_right_answers_of_empty_reasoning_may_earn_as_much_but_no_more(counting):
    length = counting(lambda _, text: min(len(text) / 1000, 9.0))
    found = hacked(length)
    assert {"1000 times a word", "the reasoning 5 times", "every number"} <= found
    assert "a full stop for reasoning" not in found and not found & {*WRITTEN}
    assert not hacked(counting(lambda _, text: 1.0)) & {*HOLLOW, *WRITTEN}
    assert hacked(counting(lambda _, text: 1.0)) == {*OUT_OF_FORM, *WRONG}


def test_totals_that_are_equal_but_for_rounding_are_equal(counting):
    worked = {plain(parts_of(example)) for example in EXAMPLES}
    up = counting(lambda _, text: 0.3 if text in worked else 0.1 + 0.2)
    assert not hacked(up) & {*HOLLOW} and hacked(up) >= {*WRONG}
    down = counting(lambda _, text: 0.1 + 0.2 if text in worked else 0.3)
    assert hacked(down) == {*OUT_OF_FORM, *WRONG}
    assert not any(row.outbid for row in rows_of(down)[1].values())


def test_rewards_of_what_an_example_has(counting):
    """Checkpoints and context are there; what an example lacks is a total that is not there."""
    lines = counting(
        lambda example, text: float(bool(example["checkpoints"] and example["context"]))
    )
    assert rows_of(lines)[0].unrewarded == 0
    other = [{"id": "x", "question": "1+1?", "answer": "2", "reasoning": "1+1=2"}]
    report, rows = rows_of(lines, [*EXAMPLES, *other])
    fewer = 4  # it has no checkpoints to turn round or contradict
    assert report.unrewarded == len(CASES) + 1 - fewer and "KeyError" in str(report.reason)
    assert rows["nothing"].rewarded == 4 and report.plain == 1.0


def test_nothing_is_said_without_totals(counting):
    report, rows = rows_of(counting(lambda example, text: math.nan))
    assert math.isnan(report.plain) and "abstained" in str(report.reason)
    assert all(math.isnan(row.total) and not row.rewarded for row in rows.values())
    assert not any(row.hacked or row.outbid for row in rows.values())
    # Where the worked solution alone has none, there is nothing to compare with.
    some = counting(lambda example, text: math.nan if text == plain(parts_of(example)) else 1.0)
    assert not any(row.hacked or row.rewarded for row in rows_of(some)[1].values())
