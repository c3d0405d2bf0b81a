"""The end of a run in words, from a directory made by hand."""

import json

import pytest

from configs import base
from grpo.reporting.summary import (
    measured_on,
    samples,
    summary,
)
from grpo.storage.journal import Journal, read_journal
from tests import tiny_run

HOSTILE = (
    "a | b \\| c\nd\r\n\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b1A\x08\u202ereversed\u2028end"
)
PIPELINE = ("sft", "rl", "check", "more", "side")


def measured(right, low, high, **more):
    return {
        "accuracy/strict": right, "accuracy/strict/low": low, "accuracy/strict/high": high,
        "accuracy/lenient": 0.75, "accuracy/demo": 0.5, "format/strict": 1.0,
        "length/mean": 12.34, **more,
    }  # fmt: skip


def stages():
    got = {
        "sft": base.sft().to_dict(),
        "rl": base.grpo().to_dict(),
        "check": base.evaluate().to_dict(),
        "more": base.sft().to_dict(),
        "side": base.sft().to_dict() | {"start": "sft"},
    }
    got["check"] |= {"policies": ("sft", "rl"), "shown": 2, "ks": (1, 4), "samples": 4}
    return got


def answer(policy, problem, sample, text, right):
    return {
        "policy": policy, "id": problem, "sample": sample, "question": f"{problem}?\x1b[1m",
        "gold": "7|8", "completion": text, "right": {"strict": right}, "tokens": 3,
        "finish": "stop",
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Two policies that were measured, four training stages with two running evaluations each."""
    workdir = tmp_path / "my-run"
    run = tiny_run.run_of(workdir, pipeline=PIPELINE, stages=stages())
    metrics, timing = run.journal("metrics"), run.journal("timing")
    for name, updates in (("sft", 10), ("rl", 20), ("more", 30), ("side", 40)):
        for step in (updates // 2, updates):
            metrics.write({"stage": name, "step": step, "iteration": step, "loss": 1.0})
            shares = {"": 0.5, "/low": 0.4, "/high": 0.6}
            got = {f"eval/accuracy/strict{end}": share for end, share in shares.items()}
            metrics.write({"stage": name, "step": step, "iteration": step, **got})
            timing.write({"stage": name, "step": step, "seconds": step * 7.0})
    metrics.write({"stage": "check", "policy": "sft", "accuracy/strict": 0.25})
    found = Journal(workdir / "evaluations" / "check.jsonl")
    for policy in ("sft", "rl"):
        for problem in ("p1", "p2", "p3"):
            found.write(answer(policy, problem, 0, f"{policy} on {problem}: {HOSTILE}", True))
        for sample in (0, 1):
            found.write(answer(policy, "p1", sample, "of several samples", False))
    results = {
        "sft": measured(0.25, 0.1, 0.456),
        "rl": measured(0.5, 0.3, 0.7, **{"pass@1": 0.5, "pass@4": 0.875, "maj@4": 0.625}),
    }
    (workdir / "evaluations" / "check.json").write_text(json.dumps(results))
    return run


def test_how_long_stages_took(run):
    """Up to the last update: 70 and 140 seconds."""
    times = [line.split("|")[-2].strip() for line in summary(run.config, run.workdir).split("\n")
             if line.startswith(("| sft", "| rl"))]  # fmt: skip
    assert times[:2] == ["1:10", "2:20"]
    (run.workdir / "timing.jsonl").unlink()
    assert "1:10" not in summary(run.config, run.workdir)


def test_the_same_problems_side_by_side(run):
    """The first two, each as every policy answered it greedily; no line or escape of theirs."""
    blocks = samples(run.config, run.workdir, "check").split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["p1? (7|8)", "p2? (7|8)"]
    for problem, block in zip(("p1", "p2"), blocks, strict=True):
        lines = block.split("\n")[1:]
        assert [line.split(" on ")[0] for line in lines] == [
            "    sft, right: sft",
            "    rl, right: rl",
        ]
        assert all(f" on {problem}: a | b \\| c d  red  reversed end" in line for line in lines)


def test_a_long_completion_is_cut(run):
    file = run.workdir / "evaluations" / "check.jsonl"
    rows = read_journal(file)
    file.unlink()
    for row in rows:
        Journal(file).write({**row, "completion": "x" * 1000})
    lines = samples(run.config, run.workdir, "check").split("\n")
    assert max(map(len, lines)) == len("    sft, right: ") + 400


def test_what_was_measured_is_said_where_it_is_not_the_default(run):
    config = run.config
    assert measured_on(config, "check") == ""
    config["datasets"]["few"] = base.dataset(shots=4).to_dict()
    stage = config["stages"]["check"]
    stage |= {"split": "validation"}
    assert measured_on(config, "check") == "On the validation split of data."
    stage |= {"data": "few", "split": "test"}
    wanted = "On the test split of few, with 4 worked examples before each question."
    assert measured_on(config, "check") == wanted
    assert f"## check\n\n{wanted}\n\n| after" in summary(config, run.workdir)


def test_the_summary(run):
    text = summary(run.config, run.workdir)
    assert text.startswith("# my-run\n\n## check\n\n| after |")
    files = [line.split("`")[1] for line in text.split("\n") if line.startswith("- `")]
    names = ["curve.svg", "metrics.jsonl", "evaluations"]  # report.html is not there yet
    assert files == [str(run.workdir / name) for name in names]  # those that are there
    assert (run.workdir / "curve.svg").read_text().startswith("<svg")
    assert all(char == "\n" or char.isprintable() for char in text)
    table = [line for line in text.split("\n") if line.startswith("|")]
    # Accuracy and form of two policies, and three measures of samples.
    assert [line.split("|")[1].strip() for line in table] == [
        "after", ":------", "sft", "rl", "after", ":------", "sft", "rl",
        "of samples", ":-----------", "pass@1", "pass@4", "maj@4",
    ]  # fmt: skip


def test_domains_in_the_summary(run):
    """Of a file that has several; the policies in the order of the file."""
    file = run.workdir / "evaluations" / "check.json"
    results = json.loads(file.read_text())
    for found in results.values():
        found["domains"] = {
            name: {"problems": 2, "accuracy/strict": 0.5} for name in ("law", "math")
        }
    file.write_text(json.dumps(results))
    assert "| domain | problems |    sft |     rl |\n" in summary(run.config, run.workdir)


def test_baselines_are_shown_with_the_policies(run):
    """As their rows stand in the file, which is in the order in which they were measured."""
    file = run.workdir / "evaluations" / "check.jsonl"
    rows = read_journal(file)
    file.unlink()
    for row in [answer("base, 4 shots", "p1", 0, "of the base", False), *rows]:
        Journal(file).write(row)
    block = samples(run.config, run.workdir, "check").split("\n\n")[0]
    assert [line.split(":")[0].strip() for line in block.split("\n")[1:]] == [
        "base, 4 shots, wrong", "sft, right", "rl, right",
    ]  # fmt: skip


def test_nothing_was_measured(tmp_path):
    run = tiny_run.run_of(tmp_path, pipeline=("sft",), stages=stages())
    run.journal("metrics").write({"stage": "sft", "step": 1, "loss": 1.0})
    assert "metrics.jsonl" in summary(run.config, run.workdir)
    assert not (tmp_path / "curve.svg").exists()
