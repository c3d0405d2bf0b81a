"""Preferences in files: what a row must have, and what is said of one that has it not."""

import json

import pytest

from grpo.data.examples import DataError
from grpo.data.preferences import from_row, load_preferences

COLUMNS = {"question": "prompt", "chosen": "good", "rejected": "bad"}
WITH_MARGIN = {**COLUMNS, "margin": "by", "id": "name"}
ROW = {"prompt": "Hi", "good": "Hello!", "bad": "What?", "by": 2, "name": "one"}


def test_by_hand():
    assert from_row(ROW, COLUMNS) == {
        "question": "Hi", "chosen": "Hello!", "rejected": "What?", "margin": None,
        "cut_off": False,
    }  # fmt: skip
    assert from_row(ROW, WITH_MARGIN) == {
        "id": "one", "question": "Hi", "chosen": "Hello!", "rejected": "What?", "margin": 2.0,
        "cut_off": False,
    }  # fmt: skip
    for row in ({**ROW, "by": None}, {key: ROW[key] for key in ROW if key != "by"}):
        assert from_row(row, WITH_MARGIN)["margin"] is None
    assert from_row({**ROW, "by": 0}, WITH_MARGIN)["margin"] == 0.0


def test_a_rejected_completion_may_have_been_cut_off():
    columns = {**COLUMNS, "cut_off": "short"}
    found = [from_row({**ROW, **extra}, columns)["cut_off"] for extra in ({}, {"short": True})]
    assert found == [False, True]
    with pytest.raises(DataError, match="field 'short' is 1, neither true nor false"):
        from_row({**ROW, "short": 1}, columns)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": ...}, "no field 'prompt' (it has 'good', 'bad', 'by', 'name')"),
        ({"good": None}, "field 'good' is null"),
        ({"bad": ["What?"]}, "field 'bad' is of type list, not a text"),
        ({"bad": " "}, "field 'bad' is empty"),
        ({"bad": "Hello!"}, "the chosen completion is the rejected one"),
        ({"by": "2"}, "field 'by' is '2', not a number from 0 on"),
        ({"by": True}, "field 'by' is True, not a number from 0 on"),
        ({"by": -0.5}, "field 'by' is -0.5, not a number from 0 on"),
        ({"by": float("inf")}, "field 'by' is inf, not a number from 0 on"),
        ({"by": float("nan")}, "field 'by' is nan, not a number from 0 on"),
        ({"name": 3}, "field 'name' is of type int, not a text"),
    ],
)
def test_bad_rows(changes, reason):
    row = {key: value for key, value in {**ROW, **changes}.items() if value is not ...}
    with pytest.raises(DataError) as caught:
        from_row(row, WITH_MARGIN)
    assert str(caught.value) == reason


def written(folder, rows):
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_file(tmp_path):
    """A question may come with several pairs; the same pair is left out and counted."""
    rows = [ROW, {**ROW, "good": "Hey!"}, {**ROW, "prompt": " hi "}, {**ROW, "bad": "Hello!"}]
    found, report = load_preferences(written(tmp_path, rows), COLUMNS, 0.25)
    assert [row["chosen"] for row in found] == ["Hello!", "Hey!"]
    assert [row["id"] for row in found] == ["pairs:1", "pairs:2"]
    bad = f"{tmp_path}/pairs.jsonl:row 4: the chosen completion is the rejected one"
    assert report == {"rows": 4, "duplicates": 1, "bad": [bad]}
    with pytest.raises(DataError, match="1 of 4 rows are bad"):
        load_preferences(written(tmp_path, rows), COLUMNS, 0.0)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"question": "prompt"}, "columns: which one is the chosen and the rejected?"),
        (
            {**COLUMNS, "answer": "x"},
            "columns: 'answer' is none of chosen, cut_off, id, kind, margin",
        ),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, reason):
    with pytest.raises(DataError, match=reason):
        load_preferences(written(tmp_path, [ROW]), columns, 0.0)
