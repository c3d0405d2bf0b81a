"""A run does not go on with other data, another tokenizer or other weights than it began with."""

import json
import os
import shutil

import pytest

from grpo.runs import inputs
from tests.small_run import (
    assert_same_run,
    launch,
    rows,
    small,
    small_sft,
    stop_at,
    watched,
)


def questions(folder, changes=()):
    """A file of examples, some of them changed."""
    found = [{"question": f"What is {n} and 1?", "answer": f"{n + 1}", "reasoning": f"{n}+1"}
             for n in range(24)]  # fmt: skip
    for place, answer in changes:
        found[place]["answer"] = answer
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (folder / "test.jsonl").write_text('{"question": "100?", "answer": "1", "reasoning": "1"}\n')
    return found


def config(data, model=None):
    run = small()
    run.data.update(source="rows", train=f"{data}/train.jsonl", test=f"{data}/test.jsonl")
    run.data.columns = {"question": "question", "answer": "answer", "reasoning": "reasoning"}
    run.stages.sft, run.pipeline = small_sft(), ("sft",)
    run.stages.sft.update(evaluate_every=0, checkpoint_every=1)
    if model is not None:
        run.model.path = str(model)
        run.stages.sft.lora.update(rank=2, alpha=4.0, targets="q|v")
    return run


@pytest.fixture(scope="module")
def model(folder):
    """A checkpoint of another run, which an adapter is trained on."""
    (folder / "first").mkdir()
    questions(folder / "first")
    assert launch(config(folder / "first"), folder / "base") == 0
    return folder / "base" / "checkpoints" / "sft" / "00000003"


def stopped(made, workdir):
    with watched(stop_at("sft update 1")):
        assert launch(made, workdir) == 75


def refused(made, workdir, capsys) -> str:
    """What a launch says that goes on with something else; it computes nothing."""
    before = (workdir / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    with watched(lambda run, event: None) as events:
        assert launch(made, workdir) == 2
    err = capsys.readouterr().err
    assert events == [] and (workdir / "metrics.jsonl").read_bytes() == before
    assert not (workdir / "DONE").exists() and not (workdir / "FAILED").exists()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_answers_that_changed_and_rows_in_another_order(folder, tmp_path, capsys):
    lines = questions(tmp_path)
    made, workdir = config(tmp_path), tmp_path / "run"
    stopped(made, workdir)
    questions(tmp_path, [(5, "7")])
    line = refused(made, workdir, capsys)
    assert "began with other inputs: the train examples of data: bring them back" in line
    lines[0], lines[1] = lines[1], lines[0]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert "the train examples of data" in refused(made, workdir, capsys)
    questions(tmp_path)  # brought back
    assert launch(made, workdir) == 0
    assert [row["step"] for row in rows(workdir, "metrics")] == [1, 2, 3]


def test_the_order_of_examples_is_part_of_what_they_are():
    """Also within a chunk, and whether they are cut into chunks elsewhere."""
    examples = [{"id": str(n), "question": f"{n}?"} for n in range(2 * inputs.CHUNK + 3)]

    def hashed(examples):
        return inputs.hash_of(examples, lambda: None)

    assert hashed(examples) == hashed([*examples])
    swapped = [examples[1], examples[0], *examples[2:]]
    assert len({hashed(x) for x in (examples, swapped, examples[:-1], examples[::-1])}) == 4


def test_one_may_go_on_with_what_is_there(folder, tmp_path, capsys):
    """As the line says: by deleting what was written down."""
    questions(tmp_path)
    made, workdir = config(tmp_path), tmp_path / "run"
    stopped(made, workdir)
    questions(tmp_path, [(5, "7")])
    assert f"delete {workdir / 'inputs.json'} to go on" in refused(made, workdir, capsys)
    (workdir / "inputs.json").unlink()
    assert launch(made, workdir) == 0


def test_a_letter_of_the_tokenizer(folder, tmp_path, capsys):
    questions(tmp_path)
    made, workdir = config(tmp_path), tmp_path / "run"
    stopped(made, workdir)
    proto = (workdir / "tokenizer.model").read_bytes()
    changed = proto.replace(b"What", b"Whot")
    assert changed != proto
    (workdir / "tokenizer.model").write_bytes(changed)
    assert "other inputs: the tokenizer of base" in refused(made, workdir, capsys)


def test_weights_below_an_adapter(folder, model, tmp_path, capsys):
    """Those of another run, which are replaced by a whole checkpoint of a third one."""
    questions(tmp_path)
    other = config(folder / "first")
    other.seed = 5
    shutil.copytree(folder / "base", tmp_path / "base")
    made, workdir = config(tmp_path, tmp_path / "base/checkpoints/sft/00000003"), tmp_path / "run"
    stopped(made, workdir)
    assert launch(other, tmp_path / "third") == 0
    there = tmp_path / "third/checkpoints/sft/00000003"
    shutil.rmtree(tmp_path / "base/checkpoints/sft/00000003")
    shutil.copytree(there, tmp_path / "base/checkpoints/sft/00000003")
    assert "sft/00000003/manifest.json of base" in refused(made, workdir, capsys)


def test_a_file_of_weights_is_read_again_only_if_it_may_have_changed(tmp_path, monkeypatch):
    """Size and times that are kept, as a careful copy keeps them, do not hide a change."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * 1000)
    first = inputs.entry_of(file, {})
    read = []
    digest = inputs.hashlib.file_digest
    monkeypatch.setattr(
        inputs.hashlib, "file_digest", lambda *words: read.append(1) or digest(*words)
    )
    assert inputs.entry_of(file, first) == first and read == []
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"b" * 1000)
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1]  # the fault is there
    assert inputs.entry_of(file, first)["sha256"] != first["sha256"] and read == [1]


def test_the_files_of_a_directory(tmp_path):
    for name in ("config.json", "model-2.safetensors", "model-1.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    found = dict(inputs.files_of({"path": str(tmp_path), "revision": None}))
    assert [*found] == ["config.json", "model-1.safetensors", "model-2.safetensors"]
    assert dict(inputs.files_of({"path": None})) == {}


def test_what_is_written_down_names_no_folder(folder, model, tmp_path):
    questions(tmp_path)
    made = config(tmp_path, model)
    stopped(made, tmp_path / "run")
    text = (tmp_path / "run" / "inputs.json").read_text()
    assert str(tmp_path) not in text and str(folder) not in text
    assert [*json.loads(text)["weights"]["base"]] == ["sft/00000003/manifest.json"]


def test_a_damaged_record_is_one_line(folder, tmp_path, capsys):
    questions(tmp_path)
    made, workdir = config(tmp_path), tmp_path / "run"
    stopped(made, workdir)
    for damage in ("", "{", "[]", '{"data": 3, "tokenizers": {}, "weights": {}}'):
        (workdir / "inputs.json").write_text(damage)
        assert "inputs.json: cannot be read; delete it to go on" in refused(made, workdir, capsys)


def test_equal_inputs_are_no_hindrance(folder, tmp_path, capsys):
    """The same in another launch, and in another directory."""
    questions(tmp_path)
    made = config(tmp_path)
    stopped(made, tmp_path / "a")
    assert launch(made, tmp_path / "a") == 0
    assert launch(made, tmp_path / "b") == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    there, here = (json.loads((tmp_path / run / "inputs.json").read_text()) for run in "ab")
    assert there == here
