"""Files that are broken in every way we know: what is left out, what is refused, what is said."""

import csv
import importlib.util
import json
import re
import sys
import types

import pytest
from huggingface_hub import errors

from grpo.data.examples import DataError, text_in
from grpo.data.gsm8k import COLUMNS, load_gsm8k
from grpo.data.sources import load_examples, read_rows

GOOD = b'{"question": "1+1?", "answer": "so\\n#### 2"}'
OTHER = b'{"question": "2+1?", "answer": "so\\n#### 3"}'
THIRD = b'{"question": "3+1?", "answer": "so\\n#### 4"}'
COLUMNS_WITH_ID = {**COLUMNS, "id": "id"}
HAS = "(it has 'question')"


def written(tmp_path, content: bytes, name: str = "rows.jsonl"):
    file = tmp_path / name
    file.write_bytes(content)
    return file


def loaded(file, max_bad: float = 0.9, columns=COLUMNS):
    """The golds of a file's examples, and its report."""
    examples, report = load_gsm8k(file, columns, True, max_bad, "removed")
    return [example["answer"] for example in examples], report


def refusal(call, *args) -> str:
    """The one line of the error, with no other error behind it."""
    with pytest.raises(DataError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"question": "1?"}', f"no field 'answer' {HAS}"),
        (b'{"question": "1?", "answer": null}', "field 'answer' is null"),
        (b'{"question": 7, "answer": "#### 2"}', "field 'question' is of type int, not a text"),
        (b'{"question": ["1?"], "answer": "#### 2"}', "field 'question' is of type list, not a"),
        (b'{"question": " \\n", "answer": "#### 2"}', "field 'question' is empty"),
        (b'{"question": "1?", "answer": "2"}', "the answer has no '####' where it needs one"),
        (b'{"question": "1?", "answer": "#### "}', "what follows '####' is not one line of text"),
        (b'{"question": "1\\ud800?", "answer": "#### 2"}', "has a lone surrogate, which is no"),
        (b'{"question": "1\xe9?", "answer": "#### 2"}', "not UTF-8 (byte 16 of the line)"),
        (b'["1?", "#### 2"]', "a list, where an object is expected"),
        (b'"1?"', "a str, where an object is expected"),
        (b"{}", "no field 'answer' (it has none)"),
        (b'{"question": "1?", "answer"', "not JSON: Expecting ':' delimiter at character 28"),
        (b'{"question": "1?", "answer": NaN}', "not JSON that can be read (NaN is no number)"),
        (b"[" * 100_000, "not JSON that can be read (maximum recursion depth exceeded"),
        (b'{"question": ' + b"1" * 5000 + b"}", "not JSON that can be read (Exceeds the limit"),
        (b"\x00", "not JSON: Expecting value at character 1"),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_bad_lines(tmp_path, row, reason, newline):
    file = written(tmp_path, newline.join([GOOD, b"", row, OTHER, b""]))
    golds, report = loaded(file)
    assert (golds, report["rows"]) == (["2", "3"], 3)
    (bad,) = report["bad"]
    assert bad.startswith(f"{file}:row 3: {reason}") and "\n" not in bad
    assert refusal(loaded, file, 0.3) == f"{file}: 1 of 3 rows are bad: {bad}"
    assert loaded(file, 0.34)[1] == report


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "{}: is empty"),
        ("a.jsonl", b"\xef\xbb\xbf\r\n \n", "{}: is empty"),
        ("a.csv", b"", "{}: is empty"),
        ("a.csv", b"question,answer\r\n", "{}: has no rows"),
        ("a.csv", b"question;answer\n1?;#### 2\n", "{}: no example is left; 1 of 1 rows are bad: "),
        ("a.csv", b"question,question\n1?,#### 2\n", "{}:row 1: column names are empty or not un"),
        ("a.csv", b'"question"x,answer\n', "{}:row 1: not CSV ("),
        ("a.jsonl", b'{"question": "1?"}\n', "{}: no example is left; 1 of 1 rows are bad: {}:row"),
        ("a.jsonl", b" [" + GOOD + b",\n" + OTHER + b"]", "{}:row 1: a JSON array; write one obj"),
        ("a.jsonl", GOOD.decode().encode("utf-16"), "{}:row 1: UTF-16, save it as UTF-8"),
        ("a.json", GOOD, "{}: its ending is none of .jsonl, .csv, .parquet"),
        ("rows", GOOD, "{}: its ending is none of .jsonl, .csv, .parquet"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    file = written(tmp_path, content, name)
    assert refusal(loaded, file, 1.0).startswith(message.format(file, file))


def test_directories_and_missing_files(tmp_path):
    assert refusal(loaded, tmp_path) == f"{tmp_path}: is a directory; name a file in it"
    for path in (tmp_path / "none.jsonl", "none.jsonl", "./a/b/c.jsonl", "a/b/../../c.jsonl"):
        assert refusal(loaded, path) == (
            f"{path}: no such file, and not owner/name/file of a Hub dataset"
        )


def test_bom_crlf_and_no_last_line_break(tmp_path):
    file = written(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r\n" + OTHER, "rows.JSONL")
    golds, report = loaded(file, 0.0)
    assert golds == ["2", "3"]
    assert report == {"rows": 2, "duplicates": 0, "bad": []}


def test_a_torn_last_line(tmp_path):
    file = written(tmp_path, GOOD + b"\n" + OTHER[:-20])
    golds, report = loaded(file)
    assert golds == ["2"]
    assert report["bad"] == [
        f"{file}:row 2: cut off: not JSON, and the file ends without a line break"
    ]


def test_line_separators_inside_a_text_end_no_line(tmp_path):
    row = {"question": "1\u2028+\u0085+\x0c 1?", "answer": "#### 2"}
    file = written(tmp_path, json.dumps(row, ensure_ascii=False).encode() + b"\n" + b"{}\n")
    examples, report = load_gsm8k(file, COLUMNS, True, 0.9, "removed")
    assert examples[0]["question"] == row["question"]
    assert report["bad"][0].startswith(f"{file}:row 2: ")


def test_the_first_five_are_shown(tmp_path):
    file = written(tmp_path, GOOD + b"\n" + b"{}\n" * 7)
    message = refusal(loaded, file, 0.5)
    assert re.findall(r"rows\.jsonl:row (\d+): ", message) == ["2", "3", "4", "5", "6"]
    assert message.startswith(f"{file}: 7 of 8 rows are bad: {file}:row 2: ")


def test_the_same_id_twice_is_bad(tmp_path):
    rows = [json.loads(row) | {"id": key} for row, key in ((GOOD, "a"), (OTHER, "b"), (THIRD, "a"))]
    file = written(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    golds, report = loaded(file, columns=COLUMNS_WITH_ID)
    assert golds == ["2", "3"]
    assert report["bad"] == [f"{file}:row 3: id 'a' is also that of row 1"]


def test_the_same_question_twice_is_counted_and_left_out(tmp_path):
    again = GOOD.replace(b"1+1?", b" 1+1?  ").replace(b"so", b"SO")
    file = written(tmp_path, b"\n".join([GOOD, again, OTHER, GOOD]))
    golds, report = loaded(file, 0.0)
    assert golds == ["2", "3"]
    assert report == {"rows": 4, "duplicates": 2, "bad": []}


def test_csv(tmp_path):
    text = '\ufeffquestion,answer\r\n"1, or\n""one""?","so\r\n#### 2"\r\n\r\n2+1?,#### 3\r\n'
    file = written(tmp_path, text.encode(), "rows.csv")
    assert read_rows(file) == [
        (2, {"question": '1, or\n"one"?', "answer": "so\r\n#### 2"}),
        (6, {"question": "2+1?", "answer": "#### 3"}),
    ]
    assert loaded(file, 0.0)[0] == ["2", "3"]


@pytest.mark.parametrize(
    ("record", "reasons"),
    [
        (b"1?", ["has 1 fields, where the first row has 2"]),
        (b"1?,#### 2,more", ["has 3 fields, where the first row has 2"]),
        (b"1?,", ["field 'answer' is empty"]),
        (b"caf\xe9?,#### 2", ["not UTF-8"]),
        (b'1?,"#### 2"x', ["not CSV (',' expected after '\"')"]),
        (
            b'1?,"#### ' + b"2" * 140_000 + b'"',
            ["not CSV (field larger than field limit (131072))"],
        ),
    ],
)
def test_bad_csv_records(tmp_path, record, reasons):
    content = b'question,answer\n"a\nb?",#### 2\n' + record + b"\nc?,#### 3\n"
    file = written(tmp_path, content, "rows.csv")
    golds, report = loaded(file)
    assert golds == ["2", "3"]
    assert report["bad"] == [f"{file}:row 4: {reason}" for reason in reasons]


def test_rows_that_an_open_quote_swallows_are_bad(tmp_path):
    rows = [f"{n}?,#### {n}" for n in range(2, 10)]
    rows[2] = '4?,"#### 4'
    file = written(tmp_path, "\n".join(["question,answer", *rows]).encode(), "rows.csv")
    golds, report = loaded(file)
    assert golds == ["2", "3"] and report["rows"] == 8
    assert report["bad"] == [
        f"{file}:row {n}: not CSV (unexpected end of data)" for n in range(4, 10)
    ]


def test_csv_and_jsonl_hold_the_same(tmp_path):
    rows = [json.loads(row) for row in (GOOD, OTHER, THIRD)]
    rows[0]["question"] = 'A "quoted", text\nover two lines — and more\u2028?'
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows)
    lines = written(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    left, right = (
        load_gsm8k(tmp_path / "rows.csv", COLUMNS, True, 0.0, "removed"),
        load_gsm8k(lines, COLUMNS, True, 0.0, "removed"),
    )
    assert [{**e, "id": ""} for e in left[0]] == [{**e, "id": ""} for e in right[0]]


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    file = written(tmp_path, b"PAR1", "rows.parquet")
    wanted = f"{file}: Parquet files need pyarrow: pip install -e '.[parquet]'"
    assert refusal(loaded, file) == wanted


def test_parquet_rows(tmp_path, monkeypatch):
    """pyarrow is played by a module that reads JSON: our side of it is what is tested."""
    table = types.SimpleNamespace(to_pylist=lambda: [json.loads(GOOD), {"question": None}])
    fake = types.SimpleNamespace(read_table=lambda path: table)
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", fake)
    file = written(tmp_path, b"PAR1", "rows.parquet")
    golds, report = loaded(file)
    assert golds == ["2"]
    assert report["bad"] == [f"{file}:row 2: no field 'answer' {HAS}"]
    fake.read_table = lambda path: json.loads("{")
    assert refusal(loaded, file) == f"{file}: not a Parquet file (JSONDecodeError)"


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed")
def test_parquet_by_pyarrow_itself(tmp_path):
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    rows = [json.loads(GOOD), json.loads(OTHER), {"question": None, "answer": "#### 2"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), str(tmp_path / "rows.parquet"))
    golds, report = loaded(tmp_path / "rows.parquet")
    assert golds == ["2", "3"]
    assert report["bad"] == [f"{tmp_path}/rows.parquet:row 3: field 'question' is null"]
    file = written(tmp_path, b"PAR1 and no more", "torn.parquet")
    assert refusal(loaded, file).startswith(f"{file}: not a Parquet file (")


def test_the_hub_is_asked_for_what_is_not_here(tmp_path, monkeypatch):
    file, asked = written(tmp_path, GOOD), []

    def download(repo, name, repo_type, revision):
        asked.append((repo, name, repo_type, revision))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert loaded("openai/gsm8k/main/train.jsonl", 0.0)[0] == ["2"]
    assert loaded("openai/gsm8k@v1.0/train.jsonl", 0.0)[0] == ["2"]
    assert asked == [
        ("openai/gsm8k", "main/train.jsonl", "dataset", None),
        ("openai/gsm8k", "train.jsonl", "dataset", "v1.0"),
    ]
    assert refusal(loaded, "openai/gsm8k/README.md").endswith(
        ": its ending is none of .jsonl, .csv, .parquet"
    )


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert refusal(loaded, "owner/name/rows.jsonl") == (
        "owner/name/rows.jsonl: no such file here; as a file of the Hub dataset owner/name: it is "
        "not in the cache and the Hub did not answer: connect, or pass a local file"
    )


def test_no_such_file_on_the_hub(monkeypatch):
    def fail(*args, **options):
        raise errors.EntryNotFoundError("404\nfor url: https://user:secret@huggingface.co")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    message = refusal(loaded, "owner/name/rows.jsonl")
    assert message.endswith("owner/name: huggingface.co/datasets/owner/name has no such file")


def test_examples_come_back_as_they_were_written(tmp_path):
    rows = [
        {
            "id": "x",
            "question": "1?",
            "answer": "1",
            "reasoning": "r",
            "checkpoints": ["c"],
            "level": 3,
        },
        {
            "id": "y",
            "question": "2?",
            "answer": "2",
            "reasoning": None,
            "checkpoints": [],
            "level": 1,
        },
    ]
    file = written(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    assert load_examples(file, {key: key for key in rows[0]}, 0.0)[0] == rows
    more = [row | {"domain": "law", "context": f"§ {row['id']}"} for row in rows]
    other = written(tmp_path, "\n".join(map(json.dumps, more)).encode())
    asked = [row | {"question": f"{row['context']}\n\n{row['question']}"} for row in more]
    assert load_examples(other, {key: key for key in more[0]}, 0.0)[0] == asked
    file = written(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    (example, _), _ = load_examples(file, {"question": "question", "answer": "answer"}, 0.0)
    assert example == {**rows[0], "id": "rows:1", "reasoning": None, "checkpoints": [], "level": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"checkpoints": "3+4=7"}, "field 'checkpoints' is a text, and not JSON"),
        ({"checkpoints": [7]}, "field 'checkpoints' is not a list of texts"),
        ({"level": True}, "field 'level' is not an integer"),
        ({"level": "1.0"}, "field 'level' is not an integer"),
        ({"level": "one"}, "field 'level' is a text, and not JSON"),
        ({"reasoning": ""}, "field 'reasoning' is empty"),
        ({"id": 3}, "field 'id' is of type int, not a text"),
        ({"answer": 3}, "field 'answer' is of type int, not a text"),
        ({"domain": None}, "field 'domain' is null"),
        ({"context": ["a"]}, "field 'context' is of type list, not a text"),
    ],
)
def test_wrong_types(tmp_path, change, reason):
    row = {
        "id": "x",
        "question": "1?",
        "answer": "1",
        "reasoning": "r",
        "checkpoints": [],
        "level": 1,
    }
    file = written(tmp_path, json.dumps(row | change).encode())
    message = refusal(load_examples, file, {key: key for key in row | change}, 1.0)
    assert message.endswith(f"{file}:row 1: {reason}")


def test_a_mapped_column_that_is_not_there(tmp_path):
    columns = {**COLUMNS, "reasoning": "solution"}
    message = refusal(load_examples, written(tmp_path, GOOD), columns, 1.0)
    assert message.endswith("no field 'solution' (it has 'question', 'answer')")


def test_a_text_comes_back_untouched():
    assert text_in({"question": " 1?\r\n"}, "question") == " 1?\r\n"
