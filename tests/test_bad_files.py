"""Data, models and directories that a run cannot use: one line, exit code 2, nothing computed."""

import fcntl
import json
import pathlib

import pytest

from grpo.pipeline import run_config, with_presets
from tests.refusals import GOOD, LINES, TEST, changed, lines_with

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("nothing_is_computed")


BAD_FILES = {  # name of the file and what is in it, and what is said
    "absent": ("none.jsonl", None, "none.jsonl: no such file, and not owner/name/file of a Hub"),
    "a directory": ("a.jsonl", {}, "a.jsonl: is a directory; name a file in it"),
    "empty": ("a.jsonl", "", "a.jsonl: is empty"),
    "blank": ("a.jsonl", "\n \n\r\n", "a.jsonl: is empty"),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16"), "a.jsonl:row 1: UTF-16, save it as UTF-8"),
    "an array": ("a.jsonl", json.dumps(GOOD), "a.jsonl:row 1: a JSON array; write one object per"),
    "torn": ("a.jsonl", LINES[:-9], "a.jsonl:row 20: cut off: not JSON, and the file ends without"),
    "missing": ("a.jsonl", lines_with({"question": "1?"}), "a.jsonl:row 3: no field 'answer'"),
    "null": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": None}),
        "a.jsonl:row 3: field 'answer' is null",
    ),
    "of a wrong type": (
        "a.jsonl",
        lines_with({"question": 1, "answer": "#### 2"}),
        "a.jsonl:row 3: field 'question' is of type int, not a text",
    ),
    "an empty answer": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": " "}),
        "a.jsonl:row 3: field 'answer' is empty",
    ),
    "no gold": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": "2"}),
        "a.jsonl:row 3: the answer has no '####' where it needs one",
    ),
    "two golds": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": "#### 2 #### 3"}),
        "a.jsonl:row 3: the answer has 2 '####' where it needs one",
    ),
    "CSV quoting": ("a.csv", 'question,answer\n1?,"#### 2\n', "a.csv:row 2: not CSV ("),
    "CSV columns": (
        "a.csv",
        "question,answer\n1?,#### 2\n2?\n",
        "a.csv:row 3: has 1 fields, where the first row has 2",
    ),
    "not UTF-8": (
        "a.jsonl",
        lines_with('{"question": "\xe9"}').encode("latin-1"),
        "a.jsonl:row 3: not UTF-8 (byte 15 of the line)",
    ),
    "a lone surrogate": (
        "a.jsonl",
        lines_with({"question": "\ud800", "answer": "#### 1"}),
        "a.jsonl:row 3: has a lone surrogate, which is no character",
    ),
    "no Parquet": ("a.parquet", "PAR1", "a.parquet: "),
    "in the test": (
        "a.jsonl",
        lines_with({"question": " 50+1?", "answer": "#### 51"}),
        "test.jsonl: 1 test questions are among the training ones: test:1 is a:3",
    ),
    "too long": (
        "a.jsonl",
        LINES.replace("+1?", "+1" * 99 + "?"),
        "a.jsonl (train, prompts of 38): 0.0% of the examples are kept, 90.0% are needed",
    ),
}


def refused(config, workdir, capsys) -> str:
    """The line with which a run does not begin; there is nothing left of it but its settings."""
    assert run_config(config, workdir) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert not workdir.is_dir() or {path.name for path in workdir.iterdir()} <= {
        "lock", "config.json", "tokenizer.model",
    }  # fmt: skip
    return err.removeprefix("error: ").rstrip()


def reading(folder, name, content, **changes) -> dict:
    """The tiny experiment on files: what is in the training file, and a good test file."""
    (folder / "test.jsonl").write_text(TEST)
    if isinstance(content, dict):
        (folder / name).mkdir()
    elif content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    files = {"data.train": str(folder / name), "data.test": str(folder / "test.jsonl")}
    return changed({"data.source": "gsm8k", **files, **changes})


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_data_file(tmp_path, capsys, kind):
    name, content, said = BAD_FILES[kind]
    line = refused(reading(tmp_path, name, content), tmp_path / "run", capsys)
    assert said in line and len(line) < 1000


def test_duplicate_ids(tmp_path, capsys):
    columns = {"question": "question", "answer": "answer", "id": "id"}
    rows = "".join(json.dumps({**row, "id": "x"}) + "\n" for row in GOOD)
    config = reading(tmp_path, "a.jsonl", rows, **{"data.columns": columns})
    assert "a.jsonl:row 2: id 'x' is also that of row 1" in refused(config, tmp_path / "r", capsys)


def test_a_template_too_long_for_the_world(tmp_path, capsys):
    line = refused(changed({"data.template": "s3"}), tmp_path / "run", capsys)
    assert line.startswith("arithmetic (train, prompts of 38): 0.0% of the examples are kept")


def test_shots_too_long_for_a_prompt(tmp_path, capsys):
    line = refused(changed({"data.shots": 2}), tmp_path / "run", capsys)
    assert line.startswith("arithmetic (train, prompts of 38 with 2 shots): 0.0% of the examples")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.train_examples": 3}, "stages.sft.data: every train example of data is a shot"),
        (
            {"evaluation.split": "train", "data.train_examples": 3, "pipeline": ("grpo",)},
            "stages.grpo.data: every train example of data is a shot",
        ),
        (
            {"data.train_examples": 3, "pipeline": ("evaluate",), "stages.evaluate.split": "train"}
            | {"stages.evaluate.policies": ("base",)},
            "stages.evaluate.data: every train example of data is a shot",
        ),
    ],
)
def test_nothing_left_to_read_beside_the_shots(tmp_path, capsys, changes, said):
    assert refused(changed({"data.shots": 3, **changes}), tmp_path / "run", capsys) == said


def test_too_small_a_world(tmp_path, capsys, monkeypatch):
    world = {1: {"steps": 1, "operations": "+-", "largest": 4}}
    monkeypatch.setattr("grpo.data.arithmetic.LEVELS", world)
    monkeypatch.setattr("grpo.data.arithmetic.NAMES", ("Ann",))
    monkeypatch.setattr("grpo.data.arithmetic.THINGS", ("apples",))
    numbers = {"data.validation_examples": 0, "data.test_examples": 2000, "data.train_examples": 9}
    config = changed({"data.levels": (1,), "evaluation.split": "test", **numbers})
    line = refused(config, tmp_path / "run", capsys)
    assert line.startswith("levels=(1,): there are no 2000 different examples for 'test': ask for")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, ": no such directory, and not a Hub repository `owner/name`"),
        (
            lambda folder: folder.write_text(""),
            ": a file, where a checkpoint directory is expected",
        ),
        (lambda folder: folder.mkdir(), "config.json: no such file"),
        (
            lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")),
            "not valid JSON",
        ),
    ],
)
def test_a_bad_model_directory(tmp_path, capsys, make, said):
    folder = tmp_path / "gemma"
    make(folder)
    line = refused(changed({"model.path": str(folder)}), tmp_path / "run", capsys)
    assert line.startswith(f"model.path={str(folder)!r}: ") and said in line


def test_truncated_weights(tmp_path, capsys):
    folder, config = tmp_path / "gemma", {"model_type": "gemma3_text"}
    folder.mkdir()
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "head_dim": 16}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    (folder / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    line = refused(changed({"model.path": str(folder)}), tmp_path / "run", capsys)
    assert line.startswith("model.path=") and "model.safetensors: not a whole safetensors" in line


def test_a_workdir_of_another_config(tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        json.dumps(with_presets(changed({"seed": 1, "log.every_s": 5.0})))
    )
    line = refused(changed({}), tmp_path, capsys)
    assert "began with another config: seed was 1, is 0: name another directory" in line
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read; name another one" in refused(changed({}), tmp_path, capsys)


def test_a_workdir_that_is_none_or_in_use(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for workdir in (file, file / "below", pathlib.Path("/dev/null/run")):
        line = refused(changed({}), workdir, capsys)
        assert line.startswith(f"--workdir={workdir}: no directory to write in (")
    with open(tmp_path / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file.unlink()
        assert "another process is at work in it" in refused(changed({}), tmp_path, capsys)
