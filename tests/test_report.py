"""The report of a run: what it says of runs of every state, and that no text becomes markup."""

import base64
import hashlib
import json
import os
import pathlib
import re
import tomllib

import pytest

from grpo.pipeline import locked
from grpo.reporting.html.markup import escaped, island, legible
from grpo.reporting.html.page import page, policy
from grpo.reporting.html.report import EVERY, FILE, report, write_if_old, write_report
from grpo.reporting.html.rollouts import LONGEST, rollouts
from grpo.reporting.html.run_files import NoRunError, changed_leaves, read_run, state_of
from grpo.storage.journal import Journal
from grpo.tools.report import main
from tests.hostile_run import PIECES, hostile_run, make_run
from tests.read_page import Read

MOST = 5.5e6  # bytes of a page


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of two runs of 10 000 completions: of hostile texts, and of plain ones."""
    folder = tmp_path_factory.mktemp("runs")
    plain = make_run(folder / "plain", 10_000, lambda text: text)
    return [report(run) for run in (hostile_run(folder / "hostile", 10_000, 1), plain)]


def test_no_element_and_no_attribute_is_of_a_text(pages):
    """The page has those of the same run with plain texts, one by one."""
    found, wanted = (Read(text) for text in pages)
    assert found.elements == wanted.elements
    assert len(found.elements) > 500
    for name, value in found.values:
        assert not name.startswith("on") and name not in ("src", "style", "srcdoc")
        assert name != "href" or value.startswith("#") or value == "data:,"


def test_every_completion_is_in_the_data_as_legible_text(pages):
    data = [json.loads(text) for kind, text in Read(pages[0]).islands if kind == "rollouts"]
    assert len(data) == 1
    texts = [
        completion["text"]
        for part in data[0]["iterations"]
        for group in part["groups"]
        for completion in group["completions"]
    ]
    assert len(texts) == 10_000 and len(set(texts)) > 5000
    assert all(text.startswith("completion") for text in texts)
    seen = "".join(texts)
    assert "<script>alert(1)</script>" in seen and "␀" in seen and "�" in seen
    unseen = "[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    assert not re.search(unseen, seen)


def test_the_page_asks_nothing_of_anybody(pages):
    assert len(pages[0].encode()) < MOST
    assert pages[0].encode("ascii", "xmlcharrefreplace").isascii()
    outside = re.findall(r'(?:href|src|action)="([^"]*)"', pages[0])
    assert all(url.startswith("#") or url == "data:," for url in outside)
    assert pages[0].count("<script>") == 1 and "@import" not in pages[0]
    said = re.search('Content-Security-Policy" content="([^"]*)"', pages[0])
    assert said and "unsafe" not in said[1] and said[1].startswith("default-src 'none'; script-src")


def test_the_policy_is_of_the_script_that_the_page_has():
    """By an implementation of its own: the bytes between the tags."""
    text = page("t", "", [])
    for tag in ("script", "style"):
        inside = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy()


@pytest.mark.parametrize("piece", PIECES)
def test_escaped_and_island(piece):
    assert not set(escaped(piece)) & set("<>\"'")
    inside = island("x", {"text": legible(piece)}).partition(">")[2].rpartition("</script>")[0]
    assert "<" not in inside and inside.isascii()
    assert json.loads(inside) == {"text": legible(piece)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("\x00\x1b[1m", "␀␛[1m"),
        ("\x7f\x85", "␡�"),
        ("a\u202eb\ud800", "a�b�"),
        ("שלום 👩‍🚀", "שלום 👩‍🚀"),
    ],
)
def test_legible(text, wanted):
    assert legible(text) == wanted


def small_run(workdir, **texts):
    return make_run(workdir, 160, lambda text: texts.get(text, text))


def test_long_texts_are_cut_and_the_rest_is_left_alone(tmp_path):
    run = small_run(tmp_path / "run")
    row = {"stage": "s0", "step": 0, "iteration": 99, "round": 0, "group": 0}
    journal = Journal(run / "rollouts.jsonl")
    for text in ("<" * 1_000_000, "\u202e" * 1_000_000, "short"):
        journal.write({**row, "completion": text})
    found = rollouts(run / "rollouts.jsonl")["iterations"][-1]["groups"][0]["completions"]
    assert [len(one["text"]) < LONGEST + 40 for one in found] == [True] * 3
    assert found[0]["text"].endswith("… (980,000 more characters)")
    assert found[2] == {"text": "short", "reward": {}, "total": None, "advantage": None,
                        "tokens": None, "finish": "None"}  # fmt: skip
    assert len(report(run)) < MOST


def test_the_states_of_a_run(tmp_path):
    run = small_run(tmp_path / "run")
    assert state_of(run) == ("failed", "an error")
    (run / "FAILED").unlink()
    assert state_of(run) == ("stopped", "")
    with locked(run):
        assert state_of(run) == ("running", "")
        assert "while the run went on" in report(run)
    (run / "DONE").write_text("{}")
    assert state_of(run) == ("finished", "")
    assert '<p class="state finished">' in report(run)


def test_a_directory_that_is_no_run(tmp_path, capsys):
    with pytest.raises(NoRunError, match="no config"):
        read_run(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "no config.json" in capsys.readouterr().err


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    text = report(tmp_path)
    assert "not measured yet" in text and '<section id="config">' in text


def test_what_cannot_be_read_is_said(tmp_path):
    run = small_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("no json\n{}\n")
    (run / "evaluations" / "check.json").write_text("[1]")
    with open(run / "rollouts.jsonl", "a") as file:
        file.write('no json\n{"stage": "s0", "iteration": 9, "torn')
        file.write('\n{"stage":"s0","iteration":9,"step":9,"round":0,"torn')
    shown = rollouts(run / "rollouts.jsonl")["iterations"]
    assert shown and all(one["groups"] for one in shown)
    text = report(run)
    assert "metrics.jsonl:line 1" in text and "check.json holds no JSON object" in text
    assert '<section id="rollouts">' in text


def test_what_was_learnt(tmp_path):
    """From the evaluations at the end, in the order of the pipeline, or else running ones."""
    run = small_run(tmp_path / "run")
    found = {"a": {"accuracy/strict": 0.25}, "b": {"accuracy/strict": 0.75}}
    (run / "evaluations" / "check.json").write_text(json.dumps(found))
    assert '25.0 <span aria-label="to">→</span> 75.0' in report(run)
    (run / "evaluations" / "check.json").unlink()
    for step, share in ((0, 0.125), (5, 0.5)):
        Journal(run / "metrics.jsonl").write({
            "stage": "s1", "step": step, "eval/accuracy/strict": share,
            "eval/accuracy/strict/low": share - 0.1, "eval/accuracy/strict/high": share + 0.1,
        })  # fmt: skip
    text = report(run)
    assert '12.5 <span aria-label="to">→</span> 50.0' in text and "40.0 to 60.0" in text


def test_a_report_that_fails_is_said_and_no_more(tmp_path):
    said = []
    write_report(tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith("no report.html: NoRunError")
    assert list(tmp_path.iterdir()) == []


def test_while_a_run_goes_on_pages_are_written_now_and_then(tmp_path, monkeypatch):
    run, now = small_run(tmp_path / "run"), [0.0]
    write_if_old(run, print)
    file = run / FILE
    began = file.stat().st_mtime
    monkeypatch.setattr("grpo.reporting.html.report.time.time", lambda: began + now[0])
    for seconds, is_new in ((EVERY - 1, False), (EVERY + 1, True), (-5, True)):
        now[0] = seconds
        file.write_text("old")
        os.utime(file, (began, began))
        write_if_old(run, print)
        assert (file.read_text() != "old") == is_new
    assert [path.name for path in run.glob("report*")] == [FILE]


def test_the_tool_compares_configs(tmp_path, capsys):
    left, right = small_run(tmp_path / "left"), small_run(tmp_path / "right")
    config = json.loads((right / "config.json").read_text())
    config["stages"]["s0"]["loss"]["kl_coef"] = 0.5
    (right / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out.html"
    main([str(right), f"--against={left}", f"--out={out}"])
    assert "out.html: " in capsys.readouterr().out
    assert "stages.s0.loss.kl_coef" in out.read_text() and not (right / FILE).exists()
    main([str(right), f"--against={right / 'config.json'}"])
    assert "No field differs" in (right / FILE).read_text()
    with pytest.raises(SystemExit):
        main([str(right), "--against=nowhere"])


def test_changed_leaves():
    there = {"a": 1, "b": {"c": 2, "d": [3]}, "only": 5}
    here = {"a": 1, "b": {"c": 7, "d": [3]}, "new": {"x": 1}}
    assert changed_leaves(there, here) == [
        ("b.c", 2, 7), ("only", 5, None), ("new", None, {"x": 1}),
    ]  # fmt: skip


def test_every_file_that_a_page_needs_is_in_the_package():
    root = pathlib.Path(__file__).parent.parent
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = tools["package-data"]["grpo.reporting.html"]
    folder = root / "grpo" / "reporting" / "html"
    for file in folder.iterdir():
        assert file.is_dir() or file.suffix == ".py" or any(file.match(name) for name in data), file
    assert (folder / "metrics.md").read_bytes() == (root / "docs" / "metrics.md").read_bytes()


def test_evaluations_stand_in_the_order_of_the_pipeline(tmp_path):
    run = small_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["stages"]["again"] = config["stages"]["check"]
    config["pipeline"].append("again")
    (run / "config.json").write_text(json.dumps(config))
    (run / "evaluations" / "again.json").write_text('{"z": {"accuracy/strict": 0.5}}')
    assert list(read_run(run).evaluations) == ["check", "again"]
