"""Every source as a config names it; what is too long is dropped, never cut."""

import json

import pytest

from configs.base import base
from grpo.data.datasets import Dataset, drop_long, load_dataset
from grpo.data.examples import DataError


def data_of(**changes):
    return {**base().to_dict()["data"], **changes}


def written(folder, name, rows):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def solved(*pairs):
    return [{"question": q, "answer": f"so <<1+1=2>>2\n#### {a}"} for q, a in pairs]


def test_arithmetic_is_made_here():
    data = data_of(levels=(1, 2), train_examples=30, test_examples=7, worked=0.0)
    told = load_dataset(data, seed=4)
    assert (len(told.train), len(told.test)) == (30, 7)
    assert told.report == {"source": "arithmetic"}
    assert {e["level"] for e in told.train} == {1, 2}
    assert all(e["reasoning"] == f"so {e['answer']}" for e in told.train)
    assert not {e["problem"] for e in told.train} & {e["problem"] for e in told.test}
    assert load_dataset(data, seed=4) == told and load_dataset(data, seed=5).train != told.train


def test_gsm8k(tmp_path):
    train = written(tmp_path, "a.jsonl", [*solved(("1?", "1,080"), ("2?", "2"), ("2?", "2")), {}])
    test = written(tmp_path, "b.jsonl", solved(("3?", "1,003")))
    data = data_of(source="gsm8k", train=train, test=test, max_bad=0.3)
    told = load_dataset(data, seed=0)
    assert [e["answer"] for e in told.train] == ["1080", "2"]
    assert [e["reasoning"] for e in told.test] == ["so 2"]
    bad = told.report.pop("train/bad")
    assert len(bad) == 1 and "a.jsonl:row 4" in bad[0]
    assert told.report == {
        "source": "gsm8k", "train/rows": 4, "train/duplicates": 1,
        "test/rows": 1, "test/duplicates": 0, "test/bad": [],
    }  # fmt: skip
    kept = load_dataset({**data, "strip_commas": False}, seed=0)
    assert [kept.train[0]["answer"], kept.test[0]["answer"]] == ["1,080", "1,003"]
    with pytest.raises(DataError, match="1 of 4 rows are bad"):
        load_dataset({**data, "max_bad": 0.2}, seed=0)


def test_rows_of_any_columns(tmp_path):
    train = tmp_path / "a.csv"
    train.write_text("Task,Result,Why\n1+1?,2,it is\n2+2?,4,so it is\n")
    test = written(tmp_path, "b.jsonl", [{"Task": "3+3?", "Result": "6", "Why": "so"}])
    columns = {"question": "Task", "answer": "Result", "reasoning": "Why"}
    told = load_dataset(data_of(source="rows", train=str(train), test=test, columns=columns), 0)
    assert [(e["question"], e["answer"], e["reasoning"]) for e in told.train] == [
        ("1+1?", "2", "it is"),
        ("2+2?", "4", "so it is"),
    ]
    assert told.test[0]["question"] == "3+3?" and told.report["train/rows"] == 2


@pytest.mark.parametrize("source", ["gsm8k", "rows"])
def test_test_questions_among_the_training_ones(tmp_path, source):
    train = written(tmp_path, "a.jsonl", solved(("How many?", "1"), ("2?", "2")))
    test = written(tmp_path, "b.jsonl", solved(("3?", "3"), ("how  MANY?", "9")))
    with pytest.raises(DataError, match=r"b\.jsonl: 1 test questions are among the training ones"):
        load_dataset(data_of(source=source, train=train, test=test), 0)


def dataset(*lengths, test=("ab",)):
    train = [{"id": f"t{n}", "question": "x" * n} for n in lengths]
    return Dataset(train, [{"id": q, "question": q} for q in test], {"source": "arithmetic"})


def length_of(example):
    return len(example["question"])


def test_long_examples_are_dropped_and_counted():
    data = data_of(max_prompt=4, min_kept=0.6)
    before = dataset(3, 4, 5, 2, 9)
    told = drop_long(before, length_of, data)
    assert told.train == [before.train[0], before.train[1], before.train[3]]  # as they were
    assert told.test == before.test
    assert told.report == {
        "source": "arithmetic", "train/kept": 0.6, "train/examples": 3,
        "test/kept": 1.0, "test/examples": 1,
    }  # fmt: skip


def test_too_few_are_left():
    with pytest.raises(DataError) as caught:
        drop_long(dataset(3, 5, 9), length_of, data_of(max_prompt=4, min_kept=0.5))
    assert str(caught.value) == (
        "arithmetic (train, prompts of 4): 33.3% of the examples are kept, 50.0% are needed"
    )
    data = data_of(source="rows", train="/x/a.jsonl", test="/x/b.jsonl", max_prompt=4, min_kept=0.0)
    with pytest.raises(DataError, match=r"^b\.jsonl \(test, prompts of 4\): 0\.0%"):
        drop_long(dataset(3, test=("xxxxx",)), length_of, data)
