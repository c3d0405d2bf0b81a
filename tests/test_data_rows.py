"""Rows with metadata, rubrics or options: by hand, bad ones, and from every kind of file."""

import csv
import importlib
import json

import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data import choices, rubrics, traces
from grpo.data.datasets import load_dataset
from grpo.data.examples import DataError, from_row
from grpo.pipeline import STAGES
from tests.refusals import changed

TRACE = {
    "domain": "math",
    "prompt": "How much are two fours?",
    "chosen": "<reasoning>\n4 * 2 = 8\n</reasoning>\n<answer>8</answer>",
    "metadata_json": json.dumps({"checkpoints": ["4 * 2 = 8"], "final_answer": "8"}),
}
TRACES = {
    "question": "prompt", "chosen": "chosen", "metadata": "metadata_json", "domain": "domain",
}  # fmt: skip
RUBRIC = {
    "question": "What helps?",
    "reference_answer": "Rest.",
    "rubric": [
        {"title": "Rest", "description": "Says to rest.", "weight": 5},
        {"title": "Pitfall", "description": "Names a pill.", "weight": -1},
    ],
}
RUBRICS = {"question": "question", "answer": "reference_answer", "rubric": "rubric"}
CHOICE = {"ask": "Which is a noble gas?", "options": ["O2", "Ne", "N2"], "label": "B"}
CHOICES = {"question": "ask", "options": "options", "label": "label"}


def test_a_trace():
    wanted = {
        "domain": "math", "question": "How much are two fours?", "answer": "8",
        "reasoning": "4 * 2 = 8", "checkpoints": ["4 * 2 = 8"], "level": 1,
    }  # fmt: skip
    assert traces.from_row(TRACE, TRACES) == wanted
    whole = {**TRACE, "metadata_json": {"checkpoints": [], "final_answer": 8}, "chosen": " so 8 "}
    got = traces.from_row(whole, TRACES)
    assert got == wanted | {"reasoning": "so 8", "checkpoints": []}
    three = json.dumps({"checkpoints": ["a", "b", "c"], "final_answer": " x "})
    got = traces.from_row({**TRACE, "metadata_json": three}, TRACES)
    assert (got["level"], got["answer"]) == (3, "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metadata_json": "{checkpoints"}, "field 'metadata_json' is a text, and not JSON"),
        ({"metadata_json": "[" * 100_000}, "field 'metadata_json' is a text, and not JSON"),
        ({"metadata_json": "9" * 5000}, "field 'metadata_json' is a text, and not JSON"),
        ({"metadata_json": "[]"}, "field 'metadata_json' is not an object"),
        ({"metadata_json": None}, "field 'metadata_json' is null"),
        ({"metadata_json": {"checkpoints": []}}, "the metadata have no final_answer"),
        (
            {"metadata_json": {"checkpoints": [], "final_answer": True}},
            "the metadata have no final_answer",
        ),
        (
            {"metadata_json": {"final_answer": "8"}},
            "checkpoints of the metadata is not a list of texts",
        ),
        (
            {"chosen": "<reasoning>so<answer>8</answer>"},
            "the chosen text has tags, and no reasoning between <reasoning> and </reasoning>",
        ),
        (
            {"chosen": "so</reasoning><answer>8</answer>"},
            "the chosen text has tags, and no reasoning between <reasoning> and </reasoning>",
        ),
        ({"domain": ""}, "field 'domain' is empty"),
    ],
)
def test_bad_traces(change, reason):
    with pytest.raises(DataError) as caught:
        traces.from_row({**TRACE, **change}, TRACES)
    assert str(caught.value) == reason


def test_a_rubric():
    assert rubrics.from_row(RUBRIC, RUBRICS) == {
        "question": "What helps?", "answer": "Rest.", "reasoning": None, "checkpoints": [],
        "level": 1, "rubric": [
            {"title": "Rest", "description": "Says to rest.", "weight": 5.0},
            {"title": "Pitfall", "description": "Names a pill.", "weight": -1.0},
        ],
    }  # fmt: skip


ITEM = RUBRIC["rubric"][0]


@pytest.mark.parametrize(
    ("rubric", "reason"),
    [
        ([], "field 'rubric' is not a list of items"),
        ({}, "field 'rubric' is not a list of items"),
        ([ITEM, "be nice"], "item 2 of the rubric is not an object"),
        ([{**ITEM, "weight": "5"}], "item 1 of the rubric has the weight '5', no number"),
        ([{**ITEM, "weight": True}], "item 1 of the rubric has the weight True, no number"),
        ([{**ITEM, "weight": float("inf")}], "item 1 of the rubric has the weight inf, no number"),
        ([{**ITEM, "weight": float("nan")}], "item 1 of the rubric has the weight nan, no number"),
        ([{"title": "a", "weight": 1}], "item 1 of the rubric: no field 'description' (it has 't"),
    ],
)
def test_bad_rubrics(rubric, reason):
    with pytest.raises(DataError) as caught:
        rubrics.from_row({**RUBRIC, "rubric": rubric}, RUBRICS)
    assert str(caught.value).startswith(reason)


def test_a_choice():
    assert choices.from_row(CHOICE, CHOICES) == {
        "question": "Which is a noble gas?\nA. O2\nB. Ne\nC. N2", "answer": "B",
        "reasoning": None, "checkpoints": [], "level": 1, "options": ["O2", "Ne", "N2"],
    }  # fmt: skip
    given = {**CHOICE, "context": "Ne is noble.", "why": "[1]"}
    columns = {**CHOICES, "context": "context", "reasoning": "why"}
    got = choices.from_row(given, columns)
    assert got["question"].startswith("Ne is noble.\n\nWhich is") and got["reasoning"] == "[1]"
    assert got["context"] == "Ne is noble."


@pytest.mark.parametrize(
    ("options", "label", "letter"),
    [
        (["O2", "Ne"], "Ne", "B"),
        (["O2", "Ne"], 0, "A"),
        (["O2", "Ne"], "1", "B"),
        ({"a": "yes", "b": "no", "c": None}, "b", "b"),
        ({"x": "yes", "y": "no"}, " no ", "y"),
        ('["O2", "Ne"]', "A", "A"),
        (["0", "1"], "B", "B"),
        (["0", "1"], 1, "B"),  # the place and the text agree
    ],
)
def test_labels(options, label, letter):
    got = choices.from_row({**CHOICE, "options": options, "label": label}, CHOICES)
    assert got["answer"] == letter


@pytest.mark.parametrize(
    ("options", "label", "reason"),
    [
        (["B", "A"], "A", "the label 'A' may mean more than one of the 2 options"),
        (["1", "0"], 1, "the label 1 may mean more than one of the 2 options"),
        (["O2", "Ne"], "C", "the label 'C' is none of the 2 options"),
        (["O2", "Ne"], 2, "the label 2 is none of the 2 options"),
        (["O2", "Ne"], -1, "the label -1 is none of the 2 options"),
        (["O2", "Ne"], True, "the label True is none of the 2 options"),
        (["O2", "Ne"], None, "the label None is none of the 2 options"),
        (["O2"], "A", "field 'options' is not 2 to 26 options that differ"),
        (["O2", "O2"], "A", "field 'options' is not 2 to 26 options that differ"),
        ([str(n) for n in range(27)], "A", "field 'options' is not 2 to 26 options that differ"),
        ({"a": "yes", "b": 3}, "a", "field 'options' is not a list of texts"),
        ("O2, Ne", "A", "field 'options' is a text, and not JSON"),
    ],
)
def test_bad_choices(options, label, reason):
    with pytest.raises(DataError) as caught:
        choices.from_row({**CHOICE, "options": options, "label": label}, CHOICES)
    assert str(caught.value) == reason


PLAIN = {"q": "1?", "a": "1", "d": "law", "c": "It is so.", "r": 0.25, "l": 3, "k": ["1=1"]}
COLUMNS = {
    "question": "q", "answer": "a", "domain": "d", "context": "c", "pass_rate": "r", "level": "l",
    "checkpoints": "k",
}  # fmt: skip


def test_further_columns_of_rows():
    assert from_row(PLAIN, COLUMNS) == {
        "question": "It is so.\n\n1?", "answer": "1", "domain": "law", "context": "It is so.",
        "pass_rate": 0.25, "level": 3, "checkpoints": ["1=1"], "reasoning": None,
    }  # fmt: skip
    for rate in (1.5, -0.1, True, "x", None, float("nan"), "[0.5]"):
        with pytest.raises(DataError, match="field 'r' is"):
            from_row({**PLAIN, "r": rate}, COLUMNS)


EVERY = {
    "traces": (TRACE, TRACES),
    "rubrics": (RUBRIC, RUBRICS),
    "choices": (CHOICE, CHOICES),
    "rows": (PLAIN, COLUMNS),
}


def of_file(source, path, columns):
    data = base.dataset(source=source, train=str(path), columns=columns).to_dict()
    return load_dataset(data, 0).train


def in_csv(value):
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("source", EVERY)
def test_a_csv_file_has_the_same_rows(tmp_path, source):
    row, columns = EVERY[source]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([[*row], [in_csv(value) for value in row.values()]])
    (example,) = of_file(source, tmp_path / "a.jsonl", columns)
    assert example["id"] == "a:1"
    numbered = [e | {"id": "a:1"} for e in of_file(source, tmp_path / "a.csv", columns)]
    assert numbered == [example]


@pytest.mark.parametrize("source", EVERY)
def test_a_parquet_file_has_the_same_rows(tmp_path, source):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = importlib.import_module("pyarrow.parquet")
    row, columns = EVERY[source]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    parquet.write_table(pyarrow.Table.from_pylist([row]), str(tmp_path / "a.parquet"))
    assert of_file(source, tmp_path / "a.parquet", columns) == of_file(
        source, tmp_path / "a.jsonl", columns
    )


@pytest.mark.parametrize("source", ["traces", "rubrics", "choices"])
def test_a_config_names_its_columns(source):
    data = base.dataset(source=source, train="a.jsonl", max_prompt=38).to_dict()
    (line,) = problems(changed({"datasets": {"more": data}}), STAGES)
    assert line.startswith("datasets.more.columns: which one is the ")
    data["columns"] = EVERY[source][1]
    assert problems(changed({"datasets": {"more": data}}), STAGES) == []
    data["shots"] = 2
    lines = problems(changed({"datasets": {"more": data}}), STAGES)
    has_none = f"datasets.more.shots=2: source={source!r} has none to show: set it to 0"
    assert lines == ([] if source == "traces" else [has_none])
