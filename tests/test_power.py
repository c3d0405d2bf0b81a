"""grpo.tools.power: numbers of samples, and a start policy of a small run."""

import json
import pathlib
import zlib

import numpy as np
import pytest

from configs import base
from grpo.evaluation.hacks import PLAIN, Report, Row
from grpo.evaluation.power import (
    advised_difficulty,
    advised_group,
    by_difficulty,
    difficulties,
    histogram,
    signal,
)
from grpo.evaluation.reward_order import format_first, wrong_above_right
from grpo.runs.borrow import borrow
from grpo.runs.start_samples import rounded_up, start_samples
from grpo.storage.journal import Journal
from grpo.storage.snapshot import SnapshotError
from grpo.tools.power import (
    evaluations_of,
    first_examples,
    measured,
    opened,
    stage_of,
    temperatures_of,
)
from grpo.tools.power_report import report
from tests.small_run import launch, small, small_evaluate, small_grpo, small_sft, workshop

ROOT = pathlib.Path(__file__).parent.parent
MEASURED = {
    "path": None, "examples": 6, "samples": 3, "order": "uniform", "temperatures": (),
    "wanted": 0.05, "seed_sd": 0.02,
}  # fmt: skip


# Numbers


def example(level: int, question: str = "", **more):
    return {"level": level, "question": question, **more}


def test_difficulties():
    levels = [example(2), example(10), example(2)]
    assert difficulties(levels) == {"level  2": [0, 2], "level 10": [1]}
    domains = [example(1, domain="law"), example(1, domain="art")]
    assert difficulties(domains) == {"level  1": [0, 1], "domain art": [1], "domain law": [0]}
    alike = [example(1, "x" * n) for n in (5, 1, 3, 2, 4, 6)]
    assert [*difficulties(alike).values()] == [[1, 3], [2, 4], [0, 5]]


def test_rates_and_histogram():
    right = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
    examples = [example(1), example(1), example(2), example(2)]
    got = by_difficulty(examples, right)
    assert [(name, part["share"], part["problems"]) for name, part in got.items()] == [
        ("all", 0.5, 4), ("level  1", 0.5, 2), ("level  2", 0.5, 2),
    ]  # fmt: skip
    assert got["all"]["pass@1"] == 0.5 and got["all"]["pass@4"] == 0.75
    assert got["level  2"]["pass@2"] == pytest.approx((3 / 6 + 1) / 2)
    assert 0 < got["all"]["low"] < 0.5 < got["all"]["high"] < 1
    assert histogram(right) == {
        "none": 1, "to 25%": 1, "to 50%": 0, "to 75%": 1, "to 100%": 0, "all": 1,
    }  # fmt: skip


def test_signal():
    """Of 12 completions in groups of 2, one of three prompts always equal, one in a third."""
    total = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 2, 3]], float)
    got = signal(total, 2, 12)
    assert got["dead"] == pytest.approx((1 + 1 / 3) / 3) and not got["fitted"]
    assert got["groups"] == 6 and got["teaching"] == pytest.approx(6 * (1 - 4 / 9))
    assert got["low"] < got["dead"] < got["high"]
    beyond = signal(total, 8, 12)
    assert beyond["fitted"] and "low" not in beyond and beyond["groups"] == 1.5


def test_advice():
    rows = [{"group": 2, "dead": 0.6}, {"group": 4, "dead": 0.3}, {"group": 8, "dead": 0.2}]
    assert advised_group(rows) == 8
    assert advised_group([*rows, {"group": 16, "dead": 0.1}]) == 8
    assert advised_group(rows[:2]) == 4
    shares = {"all": 0.5, "a": 0.1, "b": 0.7, "c": 0.95}
    parts = {name: {"share": share} for name, share in shares.items()}
    assert advised_difficulty(parts) == "b"


def bench(**totals) -> Report:
    """A report of cases with a kind and a total each."""
    kinds = {"r": "right", "w": "wrong", "o": "out of form"}
    rows = [Row(name.replace("_", " ")[1:], kinds[name[0]], total, 1, 0, 0)
            for name, total in totals.items()]  # fmt: skip
    return Report(1.0, rows, 0, None, 0.0, 2.0, {}, 0)


def test_which_wrong_answers_are_above_right_ones():
    nan = float("nan")
    found = wrong_above_right(bench(rgood=2.0, rpoor=0.5, wnear=1.5, wfar=0.1, wodd=nan, oout=9.0))
    assert [tuple(one) for one in found] == [
        ("near", 1.5, "poor", 0.5), ("near", 1.5, PLAIN, 1.0),
    ]  # fmt: skip
    assert wrong_above_right(bench(rgood=2.0, wnear=0.2)) == []
    assert wrong_above_right(bench(rgood=0.0)) == []
    assert format_first(bench(wanother_answer=1.5, oa_sentence=1.0)) == (1.5, 1.0)
    assert format_first(bench(wanother_answer=1.5)) is None


# A small run


def config():
    """Three iterations from the end of supervised training, on two levels."""
    run, sft, grpo, evaluate = small(), small_sft(), small_grpo(), small_evaluate()
    run.data.levels = (1, 2)
    evaluate.update(samples=2)
    run.stages.sft, run.stages.grpo, run.stages.evaluate = sft, grpo, evaluate
    run.pipeline = ("sft", "grpo", "evaluate")
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose supervised training is done."""
    before = config()
    before.pipeline = ("sft",)
    folder = tmp_path_factory.mktemp("power") / "run"
    with workshop():
        assert launch(before, folder) == 0
    return folder


def test_a_start_policy_is_measured_and_its_run_left_alone(finished):
    there = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with workshop():
        found = measured(config().to_dict(), "grpo", workdir=finished,
                         **{**MEASURED, "temperatures": (0.5, 1.0)})  # fmt: skip
        lines = report(config().to_dict(), found)
    assert there == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert (found["samples"], found["examples"], found["group"]) == (4, 6, 2)  # in whole groups
    assert [*found["by temperature"]] == ["1.0", "0.5"]
    own = found["by temperature"]["1.0"]
    # Hardly two completions have the same reward, if their keys differ.
    assert own["signal"][0]["dead"] < 0.2 and own["without reward"] == 0
    assert [one["group"] for one in own["signal"]] == [2, 4, 8, 16, 32]
    shown = found["differences"].values()
    assert [(one["problems here"], one["completions"]) for one in shown] == [(4, 1), (4, 2)]
    text = " ".join("\n".join(lines).split())
    for words in ("6 training examples, 4 samples", "| level 1 |", "| here |", "fitted",
                  "temperature: ", "problems for 5 points", "format"):  # fmt: skip
        assert words in text
    json.dumps(found, allow_nan=False)


def test_each_sample_stands_beside_its_example(finished):
    """Rewards that say which example a completion is of; the last batch is filled up."""

    def code(example, completion):
        return zlib.crc32(example["question"].encode()) / 2**32

    with workshop(code), opened(config().to_dict(), finished) as (run, policies):
        examples = first_examples(run, "grpo", "uniform", 5)
        found = start_samples(
            run, policies, "grpo", policies.start("grpo"), examples, samples=6, step=0,
            sampling=run.config["stages"]["grpo"]["sampling"],
        )  # fmt: skip
    wanted = [code(example, "") for example in examples]
    assert found.total_En.tolist() == [[x] * 6 for x in wanted]
    assert found.right_En.dtype == bool and found.length_En.shape == (5, 6)


def test_a_prompt_in_two_batches_is_drawn_for_twice(finished):
    """Eight slots of one example, four to a batch."""
    with workshop(), opened(config().to_dict(), finished) as (run, policies):
        (example,) = first_examples(run, "grpo", "uniform", 1)
        found = start_samples(
            run, policies, "grpo", policies.start("grpo"), [example], samples=16, step=0,
            sampling=run.config["stages"]["grpo"]["sampling"],
        )  # fmt: skip
    first, second = found.total_En.reshape(2, 8)
    assert np.isfinite(found.total_En).all() and np.sum(first == second) < 4


def test_what_is_lent(tmp_path):
    source, into = tmp_path / "run", tmp_path / "into"
    left = (
        "tokenizer.model", "checkpoints/sft/00000003", "traces/sft/traces.jsonl",
        "preferences/sft.jsonl", "preferences/sft.reference.jsonl", "rewards/sft.json",
    )  # fmt: skip
    for name in (*left, "checkpoints/grpo/00000001", "metrics.jsonl", "preferences/sft2.jsonl"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "metrics.jsonl").unlink()
    for stage in ("sft", "grpo"):
        Journal(source / "metrics.jsonl").write({"stage": stage, "step": 1})
    into.mkdir()
    borrow(source, into, ("sft", "missing"))
    assert [name for name in left if (into / name).read_text() != name] == []
    links = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_symlink()}
    assert links == {
        "tokenizer.model", "checkpoints/sft", "traces/sft", "rewards/sft.json",
    }  # fmt: skip
    copies = {
        path.relative_to(into).as_posix()
        for path in into.rglob("*")
        if path.is_file() and not any(p.is_symlink() for p in (path, *path.parents))
    }
    assert copies == {
        "preferences/sft.jsonl", "preferences/sft.reference.jsonl", "metrics.jsonl",
    }  # fmt: skip
    assert Journal(into / "metrics.jsonl").rows() == [{"stage": "sft", "step": 1}]


def test_the_first_examples(finished):
    """Each once; in the stage's order the easiest ones, where a curriculum promotes."""
    easy = config()
    easy.stages.grpo.curriculum.order = "promoted"
    with workshop(), opened(easy.to_dict(), finished) as (run, _):
        usual = first_examples(run, "grpo", "uniform", 100)
        own = first_examples(run, "grpo", "stage", 10)
    assert len(usual) == len({e["id"] for e in usual}) == 24
    assert {e["level"] for e in usual} == {1, 2} and {e["level"] for e in own} == {1}
    with workshop(), opened(config().to_dict(), finished) as (run, _):
        assert first_examples(run, "grpo", "stage", 7) == usual[:7]
        found = evaluations_of(run, "grpo")
        assert found == [("evaluate, greedy", 4, 1), ("evaluate, samples", 4, 2)]


def test_a_policy_of_its_own(finished):
    """Another start is sampled as it is named; a start that is not there says what to name."""
    checkpoint = finished / "checkpoints" / "sft" / "00000003"
    with workshop():
        there = measured(config().to_dict(), "grpo", workdir=finished, **MEASURED)
        named = measured(config().to_dict(), "grpo", workdir=finished,
                         **{**MEASURED, "path": str(checkpoint)})  # fmt: skip
        assert named == there
        with pytest.raises(SnapshotError, match=r"the end of sft: --workdir=DIRECTORY"):
            measured(config().to_dict(), "grpo", workdir=None, **MEASURED)
        fresh = config()
        fresh.stages.grpo.start = "base"
        other = measured(fresh.to_dict(), "grpo", workdir=None, **MEASURED)
    assert other["by temperature"] != there["by temperature"]


def test_whole_groups():
    assert [rounded_up(n, 8) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]


def test_flags_that_say_nothing(capsys):
    for call, said in (
        (
            lambda: stage_of(config().to_dict(), "sft"),
            "--stage=sft: is no GRPO stage",
        ),
        (lambda: temperatures_of(["0.7", "x"]), "--temperatures=0.7,x: expected numbers above 0"),
        (lambda: temperatures_of(["0"]), "--temperatures=0: expected numbers above 0"),
        (lambda: temperatures_of(["nan"]), "--temperatures=nan: expected numbers above 0"),
    ):
        with pytest.raises(SystemExit) as end:
            call()
        assert end.value.code == 2 and said in capsys.readouterr().err
    assert stage_of(config().to_dict(), None) == "grpo" and temperatures_of(["0.7", "1"]) == [
        0.7,
        1.0,
    ]


def test_an_abstaining_reward_is_said(finished):
    """No reward at all is a mean of nothing, which JSON has no number for."""
    silent = config()
    silent.stages.grpo.rewards.tag_format = base.reward(1.0, 0.0, 1.0)
    with workshop(lambda example, completion: float("nan")):
        found = measured(silent.to_dict(), "grpo", workdir=finished, **MEASURED)
    own = found["by temperature"]["1.0"]
    assert own["without reward"] == 1 and own["reward"] is None
    assert own["signal"][0]["dead"] == 1
