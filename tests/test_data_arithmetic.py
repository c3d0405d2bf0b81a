"""The world made here: its sums are right, its parts apart, its wording varied, its texts short."""

import json
import re
import string

import numpy as np
import pytest

from grpo.data import arithmetic
from grpo.data.arithmetic import LEVELS, NAMES, THINGS, draw_problem, key_of
from grpo.data.examples import DataError
from grpo.data.filters import require_disjoint
from grpo.data.making import TEST_SHARE, VALIDATION_SHARE, World, make, split
from grpo.data.templates import TEMPLATES, prompt_ids, target_ids, target_text
from models.tokenizer import Tokenizer, train_tokenizer

PARTS = ("train", "test")
VALID = (1.0, VALIDATION_SHARE)
NAMED = "world", "test", "the training ones"


def make_examples(seed, count, levels, part, worked, validation_share=0.0):
    world = World(arithmetic.LEVELS, arithmetic.draw)  # as it is now: tests make it smaller
    return make("arithmetic", world, seed, count, levels, part, worked, validation_share)


WORLD = {
    (level, part): make_examples(0, 600, [level], part, 1.0) for level in LEVELS for part in PARTS
}
ALL = [example for examples in WORLD.values() for example in examples]


def test_these_never_change():
    first, second = make_examples(0, 2, [1], "train", 1.0)
    assert first == {
        "id": "arithmetic-0-train-0",
        "question": "Eve buys 15 pens, then gives 9 away. How many are there?",
        "answer": "6",
        "reasoning": "15-9=6",
        "checkpoints": ["15-9=6"],
        "level": 1,
        "problem": "15-9",
    }
    assert second["question"] == "Ann has 12 apples, then gives 11 away. Count the apples."
    (hard,) = make_examples(7, 1, [5], "test", 1.0)
    assert hard["question"] == (
        "Ben has 95 coins and gets to 5 times as many and sells 14, then adds 47, then sells 50. "
        "Count the coins."
    )
    assert hard["reasoning"] == "95*5=475; 475-14=461; 461+47=508; 508-50=458"
    assert (hard["answer"], hard["problem"]) == ("458", "5*95-14+47-50")


@pytest.mark.parametrize("level", LEVELS)
def test_every_trace_is_right(level):
    for part in PARTS:
        for example in WORLD[level, part]:
            assert example["reasoning"] == "; ".join(example["checkpoints"])
            assert len(example["checkpoints"]) == LEVELS[level]["steps"]
            value = None
            for equation in example["checkpoints"]:
                parts = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", equation)
                assert parts
                sign = parts[2]
                left, right, result = int(parts[1]), int(parts[3]), int(parts[4])
                assert result == {"+": left + right, "-": left - right, "*": left * right}[sign]
                assert value in (None, left) and right >= 2 and result >= 1
                assert right <= (9 if sign == "*" else LEVELS[level]["largest"])
                assert sign in LEVELS[level]["operations"]
                value = result
            assert example["answer"] == str(value)


def test_the_question_holds_the_numbers_of_the_trace():
    for example in ALL:
        lines = [re.findall(r"\d+", equation) for equation in example["checkpoints"]]
        assert re.findall(r"\d+", example["question"]) == [
            lines[0][0],
            *(line[1] for line in lines),
        ]


def test_wording_says_the_operations():
    words = {"more": "+", "adds": "+", "loses": "-", "sells": "-", "uses": "-", "away": "-"}
    words["times"] = "*"
    for example in ALL:
        said = [words[word] for word in re.findall(r"\w+", example["question"]) if word in words]
        assert said == re.findall(r"[-+*]", example["reasoning"])


def test_levels_grow():
    signs = {level: set() for level in LEVELS}
    for example in ALL:
        signs[example["level"]] |= set(re.findall(r"[-+*]", example["reasoning"]))
    assert ["".join(sorted(signs[level])) for level in LEVELS] == ["+-", "+-", "*+-", "*+-", "*+-"]
    steps, largest = ([LEVELS[level][key] for level in LEVELS] for key in ("steps", "largest"))
    assert steps == [1, 3, 2, 3, 4] and largest == [20, 6, 50, 100, 100]
    numbers = [
        np.mean([int(n) for e in WORLD[level, "train"] for n in re.findall(r"\d+", e["question"])])
        for level in LEVELS
    ]
    assert numbers[1] < numbers[0] < numbers[2] < numbers[3]  # level 2: more steps, small numbers


def test_training_and_test_problems_are_disjoint():
    problems = {
        part: {e["problem"] for level in LEVELS for e in WORLD[level, part]} for part in PARTS
    }
    assert len(problems["test"]) > 500 and not problems["train"] & problems["test"]
    everything = make_examples(1, 3000, list(LEVELS), "train", 1.0)
    assert not {example["problem"] for example in everything} & problems["test"]
    require_disjoint(everything, [e for level in LEVELS for e in WORLD[level, "test"]], *NAMED)


def test_exchanged_terms_are_the_same_problem():
    assert key_of((4, [("+", 3)])) == key_of((3, [("+", 4)])) == "3+4"
    assert key_of((4, [("*", 3), ("-", 2)])) == "3*4-2"
    assert key_of((9, [("-", 3)])) == "9-3"
    assert key_of((12, [("+", 3), ("+", 4)])) == "3+12+4"
    tested, trained = (
        {
            frozenset(re.findall(r"\d+", e["checkpoints"][0])[:2])
            for e in WORLD[1, part]
            if "+" in e["reasoning"]
        }
        for part in ("test", "train")
    )
    assert tested and not tested & trained


def test_split():
    assert [split(key, 0.2) for key in ("3+4", "2+2", "9-3", "3+5", "10-4")] == [
        "train",
        "test",
        "train",
        "train",
        "train",
    ]
    keys = [f"{a}+{b}" for a in range(100) for b in range(100)]
    for share in (0.0, 0.2, 0.5, 1.0):
        found = sum(split(key, share) == "test" for key in keys) / len(keys)
        assert abs(found - share) <= 0.012 * (0 < share < 1)
    small = {key for key in keys if split(key, 0.1) == "test"}
    assert small < {key for key in keys if split(key, 0.2) == "test"}  # a larger part keeps it


def test_validation_is_a_part_of_the_training():
    """And what is for testing is for testing with and without it."""
    keys = [f"{a}+{b}" for a in range(100) for b in range(100)]
    before, after = ([split(key, 0.2, share) for key in keys] for share in (0.0, 0.1))
    pairs = set(zip(before, after, strict=True))
    assert pairs == {("train", "train"), ("test", "test"), ("train", "validation")}
    assert abs(after.count("validation") / len(keys) - 0.1) <= 0.012


def test_validation_problems_are_their_own():
    problems = {
        part: {e["problem"] for e in make_examples(0, 300, list(LEVELS), part, *VALID)}
        for part in ("train", "validation", "test")
    }
    assert min(map(len, problems.values())) > 100
    assert not problems["validation"] & (problems["train"] | problems["test"])
    assert not problems["train"] & problems["test"]
    levels = list(LEVELS)
    for part in ("train", "test"):
        with_it, without = (make_examples(0, 300, levels, part, *x) for x in (VALID, (1.0,)))
        assert (with_it == without) == (part == "test")
    (example,) = make_examples(0, 1, [1], "validation", *VALID)
    assert example["id"] == "arithmetic-0-validation-0"


def test_level_1_is_covered():
    """600 examples of a part meet nearly all of its problems."""
    random = np.random.RandomState(5)
    every = {key_of(draw_problem(random, 1)) for _ in range(20_000)}
    assert len(every) == 190 + 171  # a <= b from 2 to 20, and 2 <= b < a <= 20
    share = sum(split(key, TEST_SHARE) == "test" for key in every) / len(every)
    assert 0.15 < share < 0.25
    assert len({e["problem"] for e in WORLD[1, "test"]}) > 0.95 * share * len(every)


def test_examples_are_unique_and_a_prefix_of_more():
    many = make_examples(3, 2000, [1, 2], "train", 1.0)
    assert len({e["question"] for e in many}) == len({e["id"] for e in many}) == 2000
    assert make_examples(3, 50, [1, 2], "train", 1.0) == many[:50]
    assert make_examples(4, 50, [1, 2], "train", 1.0) != many[:50]
    assert 900 < sum(e["level"] == 1 for e in many) < 1100
    assert json.loads(json.dumps(many)) == many


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_a_share_of_the_solutions_shows_its_working(share):
    examples = make_examples(3, 2000, [1, 2], "train", share)
    working = ["; ".join(e["checkpoints"]) == e["reasoning"] for e in examples]
    assert abs(np.mean(working) - share) <= 0.03 * (0 < share < 1)
    for example, is_shown in zip(examples, working, strict=True):
        assert is_shown or example["reasoning"] == f"so {example['answer']}"
        assert len(example["checkpoints"]) == LEVELS[example["level"]]["steps"]
    # Those with working are no easier ones, and stand anywhere.
    if 0 < share < 1:
        levels = np.array([example["level"] for example in examples])
        for part in (levels == 1, levels == 2, np.arange(2000) < 1000):
            assert abs(np.mean(np.array(working)[part]) - share) < 0.06


def test_the_questions_are_the_same_whatever_is_worked():
    shares = (0.0, 0.35, 0.7, 1.0)
    few, *others = [make_examples(3, 500, [1, 2], "train", share) for share in shares]
    for more in others:
        assert [e | {"reasoning": ""} for e in more] == [e | {"reasoning": ""} for e in few]
    shown = [{e["id"] for e in part if "=" in e["reasoning"]} for part in (few, *others)]
    assert shown[0] < shown[1] < shown[2] < shown[3]  # a larger share shows these too


def test_fewer_are_a_prefix_of_more_with_their_working():
    many = make_examples(3, 500, [2], "test", 0.35)
    assert make_examples(3, 50, [2], "test", 0.35) == many[:50]
    other = make_examples(4, 500, [2], "test", 0.35)
    assert [e["reasoning"][0] == "s" for e in other] != [e["reasoning"][0] == "s" for e in many]


def test_wording_is_varied():
    shapes = set()
    for example in WORLD[1, "train"]:
        shape = re.sub(r"\d+", "N", example["question"])
        for word, sign in [(n, "A") for n in NAMES] + [(t, "T") for t in THINGS]:
            shape = re.sub(rf"\b{word}\b", sign, shape)
        shapes.add(shape)
    # 3 beginnings, 2 joins, 8 steps, 4 questions: 192 in all.
    assert 150 < len(shapes) <= 192
    text = " ".join(example["question"] for example in WORLD[1, "train"])
    assert all(word in text for word in (*NAMES, *THINGS))


def test_texts_are_short_and_words_few():
    assert max(len(e["question"]) for e in WORLD[1, "train"] + WORLD[1, "test"]) <= 60
    assert max(len(example["question"]) for example in ALL) <= 160
    words = set(re.findall(r"[A-Za-z]+", " ".join(example["question"] for example in ALL)))
    assert len(words) < 60
    assert set("".join(e["question"] for e in ALL)) <= set(
        string.ascii_letters + string.digits + " .,?"
    )


def test_a_tokenizer_of_512_pieces_has_every_word():
    plain = TEMPLATES["plain"]
    texts = [e["question"] for e in ALL] + [target_text(e, plain) for e in ALL]
    tok = Tokenizer(train_tokenizer(texts, 512))
    assert tok.vocab_size == 512
    lengths = {
        level: max(
            len(prompt_ids(tok, e, plain) + target_ids(tok, e, plain))
            for e in WORLD[level, "train"] + WORLD[level, "test"]
        )
        for level in LEVELS
    }
    assert lengths[1] <= 60 and max(lengths.values()) <= 140
    for name in NAMES:
        assert len(tok.encode(f"{name} has", bos=False)) == 2
    for thing in THINGS:
        assert len(tok.encode(f" {thing}", bos=False)) == 1


@pytest.mark.parametrize(
    ("count", "levels", "part", "message"),
    [
        (5, [1, 6], "train", "level 6: there are 1 to 5"),
        (5, [], "train", "levels=[], part='train': needs a level, and one of train, validation, "),
        (5, [1], "valid", "levels=[1], part='valid': needs a level, and one of train, validatio"),
    ],
)
def test_what_there_is_not(count, levels, part, message):
    with pytest.raises(DataError) as caught:
        make_examples(0, count, levels, part, 1.0)
    assert str(caught.value).startswith(message)


@pytest.fixture
def small_world(monkeypatch):
    """2 + 2 in 96 wordings, which are all for testing."""
    monkeypatch.setattr("grpo.data.arithmetic.LEVELS", {1: {**LEVELS[1], "largest": 2}})
    monkeypatch.setattr("grpo.data.arithmetic.NAMES", ("Ann",))
    monkeypatch.setattr("grpo.data.arithmetic.THINGS", ("apples",))


def test_all_there_are(small_world):
    assert len({example["question"] for example in make_examples(0, 96, [1], "test", 1.0)}) == 96


@pytest.mark.parametrize(("count", "part"), [(97, "test"), (1, "train")])
def test_more_than_there_are(small_world, count, part):
    with pytest.raises(DataError) as caught:
        make_examples(0, count, [1], part, 1.0)
    assert str(caught.value) == (
        f"levels=[1]: there are no {count} different examples for {part!r}: ask for fewer"
    )


def test_none_are_none():
    assert make_examples(0, 0, [1], "train", 1.0) == []
