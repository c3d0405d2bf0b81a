"""Every source as a config names it; what is too long is dropped, never cut."""

import json

import pytest

from configs import base
from grpo.data.datasets import (
    Dataset,
    buckets_for,
    drop_long,
    has_split,
    load_dataset,
    load_datasets,
    reads_of,
)
from grpo.data.examples import DataError
from grpo.data.templates import TEMPLATES


def data_of(**changes):
    return base.dataset(**changes).to_dict()


def written(folder, name, rows):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def solved(*pairs):
    return [{"question": q, "answer": f"so <<1+1=2>>2\n#### {a}"} for q, a in pairs]


def test_arithmetic_is_made_here():
    data = data_of(levels=(1, 2), train_examples=30, test_examples=7, worked=0.0)
    got = load_dataset(data, seed=4)
    assert (len(got.train), len(got.test)) == (30, 7)
    assert got.report == {"source": "arithmetic"}
    assert {e["level"] for e in got.train} == {1, 2}
    assert all(e["reasoning"] == f"so {e['answer']}" for e in got.train)
    assert not {e["problem"] for e in got.train} & {e["problem"] for e in got.test}
    assert load_dataset(data, seed=4) == got and load_dataset(data, seed=5).train != got.train


def test_gsm8k(tmp_path):
    train = written(tmp_path, "a.jsonl", [*solved(("1?", "1,080"), ("2?", "2"), ("2?", "2")), {}])
    test = written(tmp_path, "b.jsonl", solved(("3?", "1,003")))
    data = data_of(source="gsm8k", train=train, test=test, max_bad=0.3)
    got = load_dataset(data, seed=0)
    assert [e["answer"] for e in got.train] == ["1080", "2"]
    assert [e["reasoning"] for e in got.test] == ["so 2"]
    bad = got.report.pop("train/bad")
    assert len(bad) == 1 and "a.jsonl:row 4" in bad[0]
    assert got.report == {
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
    got = load_dataset(data_of(source="rows", train=str(train), test=test, columns=columns), 0)
    assert [(e["question"], e["answer"], e["reasoning"]) for e in got.train] == [
        ("1+1?", "2", "it is"),
        ("2+2?", "4", "so it is"),
    ]
    assert got.test[0]["question"] == "3+3?" and got.report["train/rows"] == 2


@pytest.mark.parametrize("source", ["gsm8k", "rows"])
def test_test_questions_among_the_training_ones(tmp_path, source):
    train = written(tmp_path, "a.jsonl", solved(("How many?", "1"), ("2?", "2")))
    test = written(tmp_path, "b.jsonl", solved(("3?", "3"), ("how  MANY?", "9")))
    with pytest.raises(DataError, match=r"b\.jsonl: 1 test questions are among the training ones:"):
        load_datasets({"data": data_of(source=source, train=train, test=test)}, 0)


def test_validation_made_here_changes_nothing_that_is_tested():
    data = data_of(train_examples=300, test_examples=60)
    plain, got = (
        load_datasets({"data": {**data, "validation_examples": n}}, seed=4)["data"] for n in (0, 50)
    )
    assert got.test == plain.test and plain.validation == [] and len(got.validation) == 50
    problems = [{e["problem"] for e in part} for part in (got.train, got.validation, got.test)]
    assert not problems[1] & (problems[0] | problems[2]) and not problems[0] & problems[2]
    assert len(got.train) == 300 and got.train != plain.train


def numbered(folder, name, numbers):
    return written(folder, name, solved(*((f"{n}?", str(n)) for n in numbers)))


def test_validation_in_a_file_of_its_own(tmp_path):
    train, valid, test = (
        numbered(tmp_path, f"{name}.jsonl", numbers)
        for name, numbers in (("a", range(5)), ("b", (5, 6)), ("c", (7,)))
    )
    data = data_of(source="gsm8k", train=train, validation=valid, test=test)
    got = load_datasets({"data": data}, 0)["data"]
    assert [[e["answer"] for e in part] for part in got[:3]] == [[*"01234"], [*"56"], ["7"]]
    assert got.report["validation/rows"] == 2


def test_validation_held_out_of_the_training_file(tmp_path):
    """The last ones, so that growing files keep what was trained on; never trained on then."""
    train, test = numbered(tmp_path, "a.jsonl", range(10)), numbered(tmp_path, "b.jsonl", (99,))
    data = data_of(source="gsm8k", train=train, test=test, validation_examples=2)
    got = load_datasets({"data": data}, 0)["data"]
    assert [[e["answer"] for e in part] for part in got[:3]] == [[*"01234567"], [*"89"], ["99"]]
    assert load_datasets({"data": data}, 7)["data"] == got  # no seed has a say
    assert load_dataset({**data, "validation_examples": 1}, 0).validation == got.validation[1:]
    assert load_dataset({**data, "validation_examples": 200}, 0) == got  # a fifth at most
    few = {**data, "train": numbered(tmp_path, "few.jsonl", range(4))}
    with pytest.raises(DataError, match=r"few\.jsonl: of 4 examples none is for validation"):
        load_dataset(few, 0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ("01", "02", "3"),
            r"b\.jsonl: 1 validation questions are among the training ones: b:1",
        ),
        (
            ("01", "2", "23"),
            r"c\.jsonl: 1 test questions are among the validation ones: c:1 is",
        ),
        (
            ("01", None, "3", "13", "4"),
            r"c\.jsonl: 1 test questions are among the training ones of",
        ),
        (
            ("01", None, "3", "4", "51"),
            r"e\.jsonl: 1 test questions are among the training ones of",
        ),
    ],
)
def test_what_is_held_out_is_in_no_other_split(tmp_path, files, message):
    """Nor in the training split of another dataset."""
    paths = [
        None if numbers is None else numbered(tmp_path, f"{name}.jsonl", numbers)
        for name, numbers in zip("abcde", files, strict=False)
    ]
    splits = dict(zip(("train", "validation", "test"), paths, strict=False))
    sections = {"data": data_of(source="gsm8k", **splits)}
    if len(paths) > 3:
        sections["more"] = data_of(source="gsm8k", train=paths[3], test=paths[4])
    with pytest.raises(DataError, match=message):
        load_datasets(sections, 0)


def test_several_datasets_have_templates_and_reports_of_their_own(tmp_path):
    more = data_of(
        source="rows", train=numbered(tmp_path, "a.jsonl", range(3)), template="reasoning_tags"
    )
    got = load_datasets({"data": data_of(train_examples=5, test_examples=2), "more": more}, 0)
    assert [len(part) for part in got["more"][:3]] == [3, 0, 0]
    assert got["more"].template is TEMPLATES["reasoning_tags"]
    assert got["data"].template is TEMPLATES["plain"]
    assert got["data"].report == {"source": "arithmetic"}
    assert got["more"].report == {
        "source": "rows", "train/rows": 3, "train/duplicates": 0, "train/bad": [],
    }  # fmt: skip


COLUMNS = {"question": "q", "answer": "a", "reasoning": "why"}


def asked(folder, name, *whys):
    """A file of questions, with a worked solution where there is one."""
    rows = [{"q": f"{n}?", "a": str(n), "why": why} for n, why in enumerate(whys)]
    return written(folder, name, rows)


def with_shots(folder, shots, *whys, **changes):
    train = asked(folder, "a.jsonl", *whys)
    return data_of(source="rows", train=train, columns=COLUMNS, shots=shots, **changes)


def test_shots_are_the_first_worked_examples_and_not_trained_on(tmp_path):
    got = load_datasets({"data": with_shots(tmp_path, 2, None, "so", "thus", "hence", None)}, 0)
    data = got["data"]
    assert [shot["reasoning"] for shot in data.template["shots"]] == ["so", "thus"]
    assert [example["question"] for example in data.train] == ["0?", "3?", "4?"]
    assert data.report["shots"] == ["a:2", "a:3"] and data.report["train/rows"] == 5
    assert {**data.template, "shots": ()} == {**TEMPLATES["plain"], "shots": ()}
    assert load_datasets({"data": with_shots(tmp_path, 2, "so", "thus")}, 0)["data"].train == []


def test_too_few_worked_examples(tmp_path):
    with pytest.raises(DataError) as caught:
        load_datasets({"data": with_shots(tmp_path, 2, "so", None, None)}, 0)
    assert str(caught.value) == (
        f"{tmp_path}/a.jsonl: 1 of 3 training examples have a worked solution, shots=2 are to be "
        "shown"
    )


@pytest.mark.parametrize("place", ["test", "test of the other", "validation"])
def test_what_is_held_out_is_no_shot(tmp_path, place):
    """In whichever dataset it is held out."""
    held = written(tmp_path, "held.jsonl", [{"q": " 1? ", "a": "1", "why": "so"}])
    sections = {
        "data": data_of(train_examples=5, test_examples=2),
        "few": with_shots(tmp_path, 2, "so", "thus", "hence", "then"),
    }
    if place == "test of the other":
        train = numbered(tmp_path, "b.jsonl", (8,))
        sections["data"] = data_of(source="rows", train=train, test=held)
        sections["data"]["columns"] = COLUMNS | {"reasoning": "a"}
        written(tmp_path, "b.jsonl", [{"q": "8?", "a": "8"}])
    else:
        sections["few"][place] = held
    with pytest.raises(DataError, match=r"held\.jsonl: 1 \w+ questions are among the training one"):
        load_datasets(sections, 0)


def test_the_same_world_with_shots():
    """The same problems are asked of both; the shots are worked examples of the training."""
    sections = {
        "data": data_of(train_examples=30, test_examples=20, validation_examples=3),
        "few": data_of(train_examples=30, test_examples=20, validation_examples=3, shots=4),
    }
    data, few = load_datasets(sections, 7).values()
    assert few.test == data.test and "shots" not in data.template
    assert few.template["shots"] == data.train[:4] and few.train == data.train[4:]
    held = {example["problem"] for example in (*data.test, *data.validation)}
    assert not held & {shot["problem"] for shot in few.template["shots"]}


def test_only_the_buckets_that_prompts_may_need():
    config = {
        "data": data_of(max_prompt=39) | {"buckets": (400, 39, 20, 100)},
        "datasets": {"few": data_of(max_prompt=400), "between": data_of(max_prompt=40)},
    }
    assert buckets_for(config, None) == buckets_for(config, "data") == (20, 39)
    assert buckets_for(config, "few") == (20, 39, 100, 400)
    assert buckets_for(config, "between") == (20, 39, 100)


def test_what_a_stage_reads():
    config = base.base().to_dict() | {"datasets": {"few": data_of()}}
    assert reads_of(base.evaluate().to_dict(), config) == [("", "data", "test")]
    trains = base.grpo().to_dict() | {"data": "few"}
    assert reads_of(trains, config) == [("", "few", "train"), ("evaluation.", "few", "test")]
    assert reads_of(trains | {"evaluate_every": 0}, config) == [("", "few", "train")]


def test_preferences(tmp_path):
    rows = [{"prompt": "Hi", "chosen": word, "rejected": "no"} for word in ("a", "b", "a")]
    columns = {"question": "prompt", "chosen": "chosen", "rejected": "rejected"}
    data = data_of(source="preferences", train=written(tmp_path, "a.jsonl", rows), columns=columns)
    got = load_dataset(data, 0)
    assert [(row["question"], row["chosen"]) for row in got.train] == [("Hi", "a"), ("Hi", "b")]
    assert got.report["train/duplicates"] == 1


def test_which_splits_there_are():
    here, files = data_of(), data_of(source="rows", train="a.csv")
    splits = ("train", "validation", "test")
    assert [has_split(here, split) for split in splits] == [True, False, True]
    assert [has_split(files, split) for split in splits] == [True, False, False]
    for data in (here, files):
        assert has_split({**data, "validation_examples": 3}, "validation")
    assert has_split({**files, "validation": "b.csv"}, "validation")


def dataset(*lengths, test=("ab",), validation=()):
    train, validation, test = (
        [{"id": text, "question": text} for text in part]
        for part in (["x" * n for n in lengths], validation, test)
    )
    return Dataset(train, validation, test, TEMPLATES["plain"], {"source": "arithmetic"})


def length_of(example):
    return len(example["question"])


def test_long_examples_are_dropped_and_counted():
    data = data_of(max_prompt=4, min_kept=0.6)
    before = dataset(3, 4, 5, 2, 9)
    got = drop_long(before, length_of, data)
    assert got.train == [before.train[0], before.train[1], before.train[3]]  # as they were
    assert got.test == before.test
    assert got.report == {
        "source": "arithmetic", "train/kept": 0.6, "train/examples": 3,
        "test/kept": 1.0, "test/examples": 1,
    }  # fmt: skip


def test_long_validation_examples_are_dropped_too():
    two = dataset(3, validation=("ab", "abcde"))
    got = drop_long(two, length_of, data_of(max_prompt=4, min_kept=0.5))
    assert got.validation == [{"id": "ab", "question": "ab"}]
    assert (got.report["validation/kept"], got.report["validation/examples"]) == (0.5, 1)
    data = data_of(source="rows", train="/x/a.jsonl", test="/x/b.jsonl", max_prompt=4)
    with pytest.raises(DataError, match=r"^a\.jsonl \(validation, prompts of 4\): 50\.0%"):
        drop_long(two, length_of, data)


def test_shots_count_in_a_prompt_and_are_named_where_it_is_too_long():
    with pytest.raises(
        DataError, match=r"^arithmetic \(train, prompts of 4 with 2 shots\): 50\.0%"
    ):
        drop_long(dataset(3, 5), length_of, data_of(max_prompt=4, shots=2))


def test_too_few_are_left():
    with pytest.raises(DataError) as caught:
        drop_long(dataset(3, 5, 9), length_of, data_of(max_prompt=4, min_kept=0.5))
    assert str(caught.value) == (
        "arithmetic (train, prompts of 4): 33.3% of the examples are kept, 50.0% are needed"
    )
    data = data_of(source="rows", train="/x/a.jsonl", test="/x/b.jsonl", max_prompt=4, min_kept=0.0)
    with pytest.raises(DataError, match=r"^b\.jsonl \(test, prompts of 4\): 0\.0%"):
        drop_long(dataset(3, test=("xxxxx",)), length_of, data)
