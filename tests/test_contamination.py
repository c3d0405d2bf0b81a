"""Training questions that say a held-out one: found, dropped, refused; and splits by a hash."""

import json

import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.contamination import checked, contaminated, grams
from grpo.data.datasets import load_dataset, load_datasets
from grpo.data.examples import DataError
from grpo.pipeline import STAGES
from tests.refusals import changed


def example(name, question):
    return {"id": name, "question": question}


def test_grams():
    assert grams("How many eggs, how many?", 3) == {
        ("how", "many", "eggs"), ("many", "eggs", "how"), ("eggs", "how", "many"),
    }  # fmt: skip
    assert grams("One TWO", 2) == grams("one, two!", 9) == {("one", "two")}
    assert grams("?!", 2) == set()


def test_found_by_hand():
    held = [example("h1", "Ann has nine red apples. How many?"), example("h2", "Two words")]
    train = [
        example("t1", "Today ann has NINE red apples in a bag"),  # five words in a row
        example("t2", "Ann has nine blue apples. How many?"),  # three
        example("t3", "two  words."),  # the whole of a short one
        example("t4", "Two words more"),
    ]
    assert [(t["id"], h["id"]) for t, h in contaminated(train, held, 5)] == [
        ("t1", "h1"), ("t3", "h2"),
    ]  # fmt: skip
    assert [t["id"] for t, _ in contaminated(train, held, 3)] == ["t1", "t2", "t3"]
    assert [t["id"] for t, _ in contaminated(train, held, 6)] == ["t3"]


def test_found_against_texts_of_words():
    """The oracle looks for the words of one as a part of the other's text."""
    random = np.random.RandomState(0)

    def question():
        return " ".join("abcdefgh"[k] for k in random.randint(0, 8, random.randint(1, 9)))

    def is_found(words, held):
        """Whether n words in a row are the other's, or all are where it has fewer."""
        if len(held.split()) < n:
            return words == held.split()
        runs = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        return any(f" {run} " in f" {held} " for run in runs)

    for n in (1, 2, 3):
        train = [example(str(i), question()) for i in range(60)]
        held = [example(str(i), question()) for i in range(n)]
        found = {t["id"] for t, _ in contaminated(train, held, n)}
        wanted = {
            t["id"]
            for t in train
            if any(is_found(t["question"].split(), h["question"]) for h in held)
        }
        assert found == wanted and 0 < len(found) < 60


def test_reported_dropped_or_refused():
    train = [example(f"t{n}", f"number {n} of many") for n in range(9)]
    held = [example("h", "Number 4 of many!")]
    what = {"n": 13, "min_kept": 0.8, "name": "a.jsonl"}
    assert checked(train, held, then="off", **what) == (train, {})
    report = {"train/contaminated": 1, "train/clean": 8 / 9}
    assert checked(train, held, then="report", **what) == (train, report)
    got = checked(train, held, then="drop", **what)
    assert got == ([t for t in train if t["id"] != "t4"], report)
    with pytest.raises(DataError) as caught:
        checked(train, held, then="abort", **what)
    assert str(caught.value) == (
        "a.jsonl: 1 training questions share 13 words in a row with held-out ones: t4 is like h: "
        "set contamination to 'drop'"
    )
    assert checked(train, [], then="abort", **what)[0] == train
    with pytest.raises(DataError, match=r"a\.jsonl \(train, without 13 words of held-out questio"):
        checked(train, held, then="drop", **{**what, "min_kept": 0.9})


def written(folder, name, questions):
    file = folder / name
    rows = [{"question": q, "answer": f"so\n#### {n}"} for n, q in enumerate(questions)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_in_datasets(tmp_path):
    """Held out in its own test or in another dataset's; the exact ones are dropped too."""
    train = written(tmp_path, "a.jsonl", [f"What is {n}?" for n in range(20)])
    test = written(tmp_path, "b.jsonl", ["what is 3", "What is 5?", "Why?"])
    more = written(tmp_path, "c.jsonl", ["How?", "what is 7, "])
    data = base.dataset(source="gsm8k", train=train, test=test).to_dict()
    other = base.dataset(source="gsm8k", train=written(tmp_path, "d.jsonl", ["x?"]), test=more)
    sections = {"data": {**data, "contamination": "drop", "min_kept": 0.5}, "more": other.to_dict()}
    got = load_datasets(sections, 0)
    assert [e["answer"] for e in got["data"].train] == [
        str(n) for n in range(20) if n not in (3, 5, 7)
    ]
    assert got["data"].report["train/contaminated"] == 3
    assert got["data"].report["train/clean"] == 0.85
    assert "train/clean" not in got["more"].report
    with pytest.raises(DataError, match=r"85\.0% of the examples are kept, 90.0% are needed"):
        load_datasets({**sections, "data": {**sections["data"], "min_kept": 0.9}}, 0)
    with pytest.raises(DataError, match="1 test questions are among the training ones"):
        load_datasets({**sections, "data": data}, 0)


def one_file(folder, count=200, **changes):
    train = written(folder, "a.jsonl", [f"How many are {n}?" for n in range(count)])
    return base.dataset(source="gsm8k", train=train, **changes).to_dict()


def test_a_hash_splits_one_file(tmp_path):
    data = one_file(tmp_path, 1000, test_share=0.2, validation_share=0.1)
    got = load_datasets({"data": data}, 0)["data"]
    sizes = [len(part) for part in got[:3]]
    assert sum(sizes) == 1000 and abs(sizes[2] - 200) < 40 and abs(sizes[1] - 100) < 30
    assert load_dataset(data, 9) == load_dataset(data, 0)  # no seed has a say
    both = load_dataset({**data, "validation_share": 0.0}, 0)
    assert both.test == got.test and both.validation == []
    assert {e["id"] for e in both.train} == {e["id"] for e in (*got.train, *got.validation)}


def test_where_a_question_goes_depends_on_its_words_alone(tmp_path):
    """Not on the file, its place, case or white space: more rows move none."""
    few = load_dataset(one_file(tmp_path, 100, test_share=0.3), 0)
    more = load_dataset(one_file(tmp_path, 300, test_share=0.3), 0)
    old = {f"How many are {n}?" for n in range(100)}
    assert [e["question"] for e in few.test] == [
        e["question"] for e in more.test if e["question"] in old
    ]
    shouted = written(tmp_path, "b.jsonl", [f"HOW  many\nare {n}?" for n in range(100)])
    loud = load_dataset(base.dataset(source="gsm8k", train=shouted, test_share=0.3).to_dict(), 0)
    assert [e["answer"] for e in loud.test] == [e["answer"] for e in few.test]


def test_a_split_with_nothing_in_it(tmp_path):
    with pytest.raises(DataError, match="puts none of 1 examples into "):
        load_dataset(one_file(tmp_path, 1, test_share=0.2), 0)


FILE = {"data.source": "gsm8k", "data.train": "a.jsonl", "data.validation_examples": 0,
        "evaluation.split": "test"}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data.test_share": 0.1}, "data.test_share=0.1: source='arithmetic' reads no file"),
        (
            {**FILE, "data.test": "b.csv", "data.test_share": 0.1},
            "data.test_share=0.1: test has a file of its own: set it to 0",
        ),
        (
            {**FILE, "data.test_share": 0.1, "data.validation_share": 0.1,
             "data.validation_examples": 9},
            "data.validation_share=0.1: validation_examples=9 are held out as well: set one of",
        ),
        ({**FILE, "data.test_share": 0.6}, "data.test_share=0.6: expected a number, at least 0, a"),
        (FILE, "data.test=None: source='gsm8k' needs a file: name one"),
        ({"data.contamination": "dorp"}, "data.contamination='dorp': expected one of off, report"),
        ({"data.calculator": "kept"}, "data.calculator='kept': expected one of removed, parenthes"),
    ],
)  # fmt: skip
def test_what_a_config_may_say(changes, line):
    (got,) = problems(changed(changes), STAGES)
    assert got.startswith(line)
    assert problems(changed({**FILE, "data.test_share": 0.1}), STAGES) == []
    validated = {**FILE, "data.test_share": 0.1, "data.validation_share": 0.1}
    assert problems(changed({**validated, "evaluation.split": "validation"}), STAGES) == []
