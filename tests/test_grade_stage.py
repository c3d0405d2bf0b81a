"""A run whose policies are graded by a server and by a model of ours; stopped, it asks no more."""

import io
import json
import re
import shutil
import statistics
import zlib

import numpy as np
import pytest

import grpo.runs.setup
from configs import base
from grpo.checks.problems import problems
from grpo.data.datasets import load_datasets
from grpo.evaluation.grades import GradeError
from grpo.judges.prompts import fenced
from grpo.pipeline import STAGES
from grpo.runs.policy_judge import PolicyJudge
from grpo.tools.preflight import preflight
from tests.misbehaving import serving
from tests.small_run import (
    C,
    assert_same_run,
    launch,
    opened,
    rows,
    small,
    small_grpo,
    small_sft,
    watched,
    workshop,
)

TITLES = {"trace": "- Sound", "answer": "- Right"}
POLICIES, DOMAINS = ("base", "sft"), ("sums", "law", "sums", "law")


def digit_of(prompt: str) -> int:
    """The rating that a prompt gets: anything from 1 to 9."""
    return 1 + zlib.crc32(prompt.encode()) % 9


def with_domains(sections, seed, check):
    """The datasets, their test examples with domains."""
    loaded = load_datasets(sections, seed, check)
    for example, domain in zip(loaded["data"].test, DOMAINS, strict=True):
        example["domain"] = domain
    return loaded


@pytest.fixture(scope="module")
def server():
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(grpo.runs.setup, "load_datasets", with_domains)
        with serving() as running:
            yield running


def config_of(server, **fields):
    config = small()
    config.judges.server = base.judge(url=server.url, name="m", attempts=1)
    config.judges.ours = base.judge(
        model="sft", prompt="criterion", scale="five", least_mass=0.0, max_prompt=1024, batch=8
    )
    config.stages.sft, config.stages.grade = small_sft(), base.grade()
    config.stages.sft.update(steps=2, evaluate_every=0)
    config.stages.grade.update(
        policies=POLICIES, batch=2, max_new_tokens=C, judges=("server",), shown=2, **fields
    )
    config.pipeline = ("sft", "grade")
    return config


def with_ours(server):
    config = config_of(server)
    config.stages.grade.judges = ("server", "ours")
    return config


@pytest.fixture(scope="module")
def straight(server, tmp_path_factory):
    """A run that nothing interrupts, and how often the server was asked what."""
    server.answer = lambda prompt, seed: str(digit_of(prompt))
    workdir = tmp_path_factory.mktemp("graded") / "straight"
    assert launch(with_ours(server), workdir) == 0
    return workdir, dict(server.asked)


def results(workdir):
    return json.loads((workdir / "evaluations" / "grade.json").read_text())


def prompt_for(asked, row, rubric):
    """The one prompt about a completion by a rubric."""
    wanted = (f"Question: {row['question']}\n", fenced(row["completion"]), TITLES[rubric])
    (prompt,) = [prompt for prompt in asked if all(text in prompt for text in wanted)]
    return prompt


def ratings(workdir, asked, policy, rubric):
    """(digit - 1) / 8 · 10 of each completion of a policy."""
    own = [row for row in rows(workdir / "evaluations", "grade") if row["policy"] == policy]
    assert len(own) == 4
    return [(digit_of(prompt_for(asked, row, rubric)) - 1) / 8 * 10 for row in own]


@pytest.mark.parametrize("rubric", ["trace", "answer"])
def test_means_and_differences(straight, rubric):
    workdir, asked = straight
    first, second = (ratings(workdir, asked, policy, rubric) for policy in POLICIES)
    found, name = results(workdir), f"server/{rubric}"
    for policy, grades in zip(POLICIES, (first, second), strict=True):
        assert found[policy][name] == pytest.approx(statistics.mean(grades))
        reach = 1.96 * statistics.stdev(grades) / 2
        low = max(0.0, statistics.mean(grades) - reach)
        assert found[policy][f"{name}/low"] == pytest.approx(low, abs=1e-3)
        assert found[policy][f"{name}/failed"] == 0.0
        assert f"{name}/entropy" not in found[policy]
        own = [grade for grade, of in zip(grades, DOMAINS, strict=True) if of == "law"]
        assert found[policy]["domains"]["law"][name] == pytest.approx(statistics.mean(own))
    ahead = statistics.mean(b - a for a, b in zip(first, second, strict=True))
    assert found["sft"][f"{name}/over base"] == pytest.approx(ahead)
    assert not [key for key in found["base"] if "/over " in key]


def test_every_question_is_asked_once(straight):
    """Two of each completion, and no other."""
    workdir, asked = straight
    completions = {
        (row["question"], row["completion"]) for row in rows(workdir / "evaluations", "grade")
    }
    assert set(asked.values()) == {1} and len(asked) == 2 * len(completions)


def test_a_model_of_ours_has_entropy(straight):
    found = results(straight[0])["sft"]
    for rubric in TITLES:
        assert 0 < found[f"ours/{rubric}/entropy"] <= np.log(5)
        assert 0 < found[f"ours/{rubric}"] < 10
    kept = rows(straight[0] / "judges", "ours")
    criteria = 6  # three of each rubric
    completions = {
        (r["question"], r["completion"]) for r in rows(straight[0] / "evaluations", "grade")
    }
    assert len(kept) == criteria * len(completions)


def test_grades_lead_to_their_replies(straight):
    workdir, _ = straight
    kept = {row["key"]: row for row in rows(workdir / "judges", "server")}
    own = [
        row for row in rows(workdir / "evaluations", "grade.grades") if row["by"] == "server/trace"
    ]
    assert len(own) == 8
    for row in own:
        (key,) = row["keys"]
        assert row["grade"] == pytest.approx((int(kept[key]["text"]) - 1) / 8 * 10)


def test_the_report(straight):
    """Tables, and each shown completion with its grades."""
    text = (straight[0] / "summary.md").read_text()
    assert "judge/rubric" in text and re.search(r"\| sft +\| +base \| +server/trace \|", text)
    found = results(straight[0])["base"]["server/answer"]
    (line,) = [one for one in text.split("\n") if re.match(r"\| base +\| +server/answer", one)]
    assert f"{found:.2f}" in line
    shown = [line for line in text.split("\n") if line.startswith("    sft, ")]
    assert len(shown) == 2 and all(
        re.match(r"    sft, (right|wrong), server/trace \d+\.\d, server/answer", line)
        for line in shown
    )
    assert [row["policy"] for row in rows(straight[0], "metrics") if row["stage"] == "grade"] == [
        *POLICIES
    ]


def test_a_stopped_run_goes_on(straight, server, tmp_path):
    """Stopped while it samples the second policy, and while it asks: the same files at the end.

    The policy whose completions are not all there is sampled again, the other one is not; no
    question is asked twice.
    """
    runs, seen = [], []
    server.forget()

    def look(run, event):
        runs.append(run)
        seen.append(event)
        if seen.count("evaluate 2") == 3:
            run.stop.reason = "stopped while it sampled"

    def answer(prompt, seed):
        if sum(server.asked.values()) >= 5:
            runs[-1].stop.reason = "stopped while it asked"
        return str(digit_of(prompt))

    server.answer = answer
    config, workdir = with_ours(server), tmp_path / "run"
    with watched(look):
        assert launch(config, workdir) == 75
    assert not server.asked
    with watched(look) as events:
        assert launch(config, workdir) == 75
    assert events == ["evaluate 2"] * 2
    assert not (workdir / "evaluations" / "grade.json").exists()
    assert 0 < len(server.asked) < len(straight[1])
    server.answer = lambda prompt, seed: str(digit_of(prompt))
    with watched(look) as events:
        assert launch(config, workdir) == 0
    assert events == [] and dict(server.asked) == straight[1]
    assert_same_run(straight[0], workdir)
    for judge in ("server", "ours"):
        kept = [w / "judges" / f"{judge}.jsonl" for w in (straight[0], workdir)]
        assert kept[0].read_bytes() == kept[1].read_bytes()


def test_a_run_that_is_killed_at_its_end(straight, server, tmp_path):
    """Between its rows and its results, where a row was lost: what it is of is sampled again.

    All is said again, and nothing asked.
    """
    server.forget()
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    for file in ("DONE", "evaluations/grade.json"):
        (workdir / file).unlink()
    completions = workdir / "evaluations" / "grade.jsonl"
    completions.write_bytes(b"".join(completions.read_bytes().splitlines(keepends=True)[:-1]))
    with watched(lambda run, event: None) as events:
        assert launch(with_ours(server), workdir) == 0
    assert events == ["evaluate 2"] * 2 and not server.asked
    assert_same_run(straight[0], workdir)


def test_a_failure_is_no_grade(straight, server, tmp_path):
    """One completion of the base has no verdict: the mean is that of the other three."""
    workdir, asked = straight
    lost = next(row for row in rows(workdir / "evaluations", "grade") if row["policy"] == "base")
    fence = fenced(lost["completion"])

    def answer(prompt, seed):
        is_lost = fence in prompt and lost["question"] in prompt
        return "I would rather not." if is_lost else str(digit_of(prompt))

    server.answer = answer
    config = config_of(server, max_failed=0.5)
    assert launch(config, tmp_path / "run") == 0
    found = results(tmp_path / "run")
    wanted = ratings(workdir, asked, "base", "trace")[1:]
    assert found["base"]["server/trace"] == pytest.approx(statistics.mean(wanted))
    assert found["base"]["server/trace/failed"] == 0.25
    assert found["base"]["server/trace/failed/unrated"] == 0.25
    both = ratings(workdir, asked, "sft", "trace")[1:]
    ahead = statistics.mean(b - a for a, b in zip(wanted, both, strict=True))
    assert found["sft"]["server/trace/over base"] == pytest.approx(ahead)
    graded = rows(tmp_path / "run" / "evaluations", "grade.grades")
    assert graded[0]["grade"] is None and graded[0]["reason"].startswith("unrated")
    assert (
        ", server/trace none, server/answer none" in (tmp_path / "run" / "summary.md").read_text()
    )


def test_too_many_failures_end_the_run_and_cost_nothing(straight, server, tmp_path):
    """What had been said stands; the same command asks what had failed, and nothing else."""
    server.forget()

    def answer(prompt, seed):
        if sum(server.asked.values()) > 3:
            raise ConnectionError("gone")
        return str(digit_of(prompt))

    server.answer = answer
    message = r"stages.grade: judge server, \w+ of base: \d of 4 completions have no verdict, max_"
    with pytest.raises(GradeError, match=message):
        launch(config_of(server), tmp_path / "run")
    assert "same command" in (tmp_path / "run" / "FAILED").read_text()
    kept = rows(tmp_path / "run" / "judges", "server")
    failed = sum("reason" in row for row in kept)
    assert failed and len(kept) - failed == 3
    before = dict(server.asked)
    server.answer = lambda prompt, seed: str(digit_of(prompt))
    assert launch(config_of(server), tmp_path / "run") == 0
    again = [prompt for prompt in before if server.asked[prompt] > 1]
    assert len(again) == failed and set(server.asked.values()) == {1, 2}
    alike = {name: x for name, x in results(straight[0])["sft"].items() if "server" in name}
    assert alike.items() <= results(tmp_path / "run")["sft"].items()


def test_a_replay_needs_no_judge(straight, server, tmp_path, monkeypatch):
    server.forget()
    monkeypatch.setattr(PolicyJudge, "__call__", lambda self, questions: 1 / 0)
    config = with_ours(server)
    for judge in ("server", "ours"):
        config.judges[judge].replay = str(straight[0] / "judges" / f"{judge}.jsonl")
    assert launch(config, tmp_path / "run") == 0
    assert results(tmp_path / "run") == results(straight[0]) and not server.asked


def test_completions_are_decoded_as_the_hackathon_did(server):
    assert config_of(server).stages.grade.sampling.preset == "judge"


def test_a_preflight_sees_rollouts_and_judges(server):
    config = with_ours(server)
    lines = preflight(config.to_dict(), STAGES)
    assert [line for line in lines if line.startswith("grade: ours: 8 rows of 1024 tokens")]
    assert [line for line in lines if line.startswith("grade: rollout: 2 prompts of 64 tokens")]
    assert not [line for line in lines if line.startswith("grade: server")]
    config.judges.ours.replay = "judges/ours.jsonl"
    lines = preflight(config.to_dict(), STAGES)
    assert not [line for line in lines if line.startswith("grade: ours")]


def test_a_policy_is_graded_with_its_own_completions(straight, server):
    """The row's completion is that of its policy: greedy, so of its likeliest tokens."""
    _, policies = opened(with_ours(server), straight[0], io.StringIO())
    tokenizer = policies.base.own_tokenizer
    found = rows(straight[0] / "evaluations", "grade")
    for row in found:
        assert row["right"].keys() >= {"strict"} and row["prompt_ids"]
        assert tokenizer.decode(row["prompt_ids"])
    assert [row["policy"] for row in found] == ["base"] * 4 + ["sft"] * 4


@pytest.mark.parametrize(("fields", "wanted"), [
    ({"judges": ("sever",)}, "stages.grade.judges=('sever',): 'sever' is none of judges; did you"),
    ({"judges": ()}, "stages.grade.judges=(): expected a tuple that is not empty"),
    ({"judges": ("server", "server")}, "stages.grade.judges=('server', 'server'): one is there tw"),
    ({"rubrics": ("trace", "trace")}, "stages.grade.rubrics=('trace', 'trace'): one is the"),
    ({"rubrics": ("trase",)}, "stages.grade.rubrics=('trase',): expected one of"),
    ({"policies": ("base", "base")}, "stages.grade.policies=('base', 'base'): one is there twice"),
    ({"policies": ("grpo",)}, "stages.grade.policies: 'grpo' is neither base nor a training stage"),
    ({"max_failed": 1.5}, "stages.grade.max_failed=1.5: expected a number"),
    ({"split": "validation"}, "stages.grade.split='validation': data has no validation examples"),
])  # fmt: skip
def test_configs_that_make_no_sense(server, fields, wanted):
    config = config_of(server)
    config.stages.grade.update(fields)
    found = problems(config.to_dict(), STAGES)
    assert len(found) == 1 and found[0].startswith(wanted), found


def test_judges_that_cannot_grade(server):
    config = with_ours(server)
    config.judges.ours.prompt = "right"
    (line,) = problems(config.to_dict(), STAGES)
    assert line.startswith("stages.grade.judges=('server', 'ours'): judges.ours.prompt='right'")
    config.judges.ours.update(prompt="criterion", model="later")
    config.stages.later = small_grpo()
    config.pipeline = ("sft", "grade", "later")
    (line,) = problems(config.to_dict(), STAGES)
    assert line.startswith("stages.grade.judges: 'later' is neither base nor a training stage")
    config.pipeline = ("sft", "later", "grade")
    assert problems(config.to_dict(), STAGES) == []
