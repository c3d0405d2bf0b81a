"""Judges are asked about what their entry is for: its domains, and what passes its gate."""

import io

import numpy as np
import pytest

from configs import base
from grpo.judges.asking import Reply
from grpo.judges.judging import Judge
from grpo.rewards.batch import each
from grpo.rewards.given import GIVEN, JUDGED
from grpo.rewards.scores import asked_about, in_process, metrics, score
from grpo.rewards.table import REWARDS, reward_table, with_values
from grpo.runs.given_rewards import Batch
from grpo.runs.judged_reward import judged
from tests.small_run import REWARD, launch, opened, rows, small, small_grpo, workshop
from tests.tiny_run import policy_of

NAN = float("nan")
JUDGE = {"name": "judged", "weight": 2.0, "low": 0.0, "high": 1.0, "options": {"judge": "j"}}
GATE = {"name": "gate", "weight": 0.0, "low": 0.0, "high": 1.0}
EXAMPLES = [{"id": d, "question": d, "answer": "1", "domain": d} for d in ("a", "b", "a", "a")]
TEXTS = ["1", "1", "0", "-"]  # what the gate makes of them: open, open, closed, no number


def table_of(monkeypatch, *lines):
    monkeypatch.setitem(REWARDS, "gate", each(lambda _, text: NAN if text == "-" else int(text)))
    return reward_table(lines)


def asked_of(table):
    return asked_about(table, EXAMPLES, TEXTS, seconds=1.0, caller=in_process)


@pytest.mark.parametrize(("changes", "asked"), [
    ({}, [1, 1, 1, 1]),
    ({"domains": ("a",)}, [1, 0, 1, 1]),
    ({"gate": "gate"}, [1, 1, 0, 0]),
    ({"gate": "gate", "domains": ("a",)}, [1, 0, 0, 0]),
])  # fmt: skip
def test_by_domain_and_gate(monkeypatch, changes, asked):
    table = table_of(monkeypatch, JUDGE | changes, GATE)
    found = asked_of(table)
    assert found.keys() == {"judged"} and found["judged"].tolist() == [bool(n) for n in asked]


def test_a_gate_that_a_model_gives_is_not_there_yet(monkeypatch):
    options = {"model": "m", "least_accuracy": 0.5, "whitened": False, "clip": 1.0}
    learned = GATE | {"name": "learned", "options": options}
    table = table_of(monkeypatch, JUDGE | {"gate": "learned"}, learned)
    assert asked_of(table)["judged"].all()


def test_what_is_not_asked_has_not_failed(monkeypatch):
    """0.5 where it is asked: 2 · 0.5 · gate; other domains and closed gates are worth 0."""
    gate = GATE | {"domains": ("a", "b")}
    table = table_of(monkeypatch, JUDGE | {"gate": "gate", "domains": ("a",)}, gate)
    given = {"judged": np.array([0.5, NAN, NAN, NAN])}
    scores = score(with_values(table, given, EXAMPLES), EXAMPLES, TEXTS, seconds=1.0)
    np.testing.assert_array_equal(scores.total, [1.0, 0.0, 0.0, NAN])  # the last gate is a failure
    assert scores.failed == {"judged": 0, "gate": 1}
    assert metrics(scores)["reward/judged/failed"] == 0.0
    given = {"judged": np.full(4, NAN)}
    scores = score(with_values(table, given, EXAMPLES), EXAMPLES, TEXTS, seconds=1.0)
    assert scores.failed["judged"] == 1 and np.isnan(scores.total[0])


def test_the_judge_is_asked_about_these_rows(monkeypatch):
    asked = []

    def ask(questions):
        asked.extend(question.prompt for question in questions)
        return [Reply(text="9", attempts=1) for _ in questions]

    judge = Judge(ask, {"model": "m"}, "overall", "generic", "nine", 0)
    open_B = {"judged": np.array([False, True, False, True])}
    examples = [{**example, "question": f"Why {n}?"} for n, example in enumerate(EXAMPLES)]
    batch = Batch(None, None, examples, TEXTS, policy_of(), open_B)
    found = judged(judge, "judged", batch)
    np.testing.assert_array_equal(found.value_B, [NAN, 1.0, NAN, 1.0])
    assert ["Why 1?" in asked[0], "Why 3?" in asked[1], len(asked)] == [True, True, 2]
    assert found.metrics["failed"] == 0.0
    nobody = judged(judge, "judged", batch._replace(asked={"judged": np.zeros(4, bool)}))
    assert np.isnan(nobody.value_B).all() and nobody.metrics == {} and len(asked) == 2


def test_judged_rewards_are_those_of_judges():
    assert [name for name, function in GIVEN.items() if function is GIVEN["judged"]] == [*JUDGED]


def open_or_closed(example, completion: str) -> float:
    """A gate that half of the completions pass."""
    return float(sum(completion.encode("utf-8", "surrogatepass")) % 2)


def test_in_a_run(tmp_path):
    """Two datasets, a judge of one of them behind a gate: its recording has no other question."""
    config = small()
    config.model.whole = ("yes", "no")
    for name, level in (("one", 1), ("two", 2)):
        config.datasets[name] = base.dataset(
            levels=(level,), train_examples=24, test_examples=4, max_prompt=64
        )
    config.data.update(source="mixture", of=("one", "two"))
    config.judges.grader = base.judge(
        model="base", prompt="right", rubric="right", scale="yes_no", least_mass=0.0,
        max_prompt=128, batch=3,
    )  # fmt: skip
    config.stages.grpo = stage = small_grpo()
    stage.rewards[REWARD] = base.reward(0.5, 0.0, 1.0)
    stage.rewards.judged = base.reward(1.0, 0.0, 1.0, gate=REWARD, domains=("two",), judge="grader")
    config.pipeline = ("grpo",)
    with workshop(open_or_closed):
        assert launch(config, tmp_path / "run") == 0
    run, _ = opened(config, tmp_path / "run", io.StringIO())
    domain_of = {example["id"]: example["domain"] for example in run.data_of("grpo").train}
    asked, others = set(), 0
    for row in rows(tmp_path / "run", "rollouts"):
        is_asked = domain_of[row["id"]] == "two" and row["reward"][REWARD] > 0
        assert (row["reward"]["judged"] is not None) == is_asked
        if is_asked:
            asked.add((row["id"], row["completion"]))
            assert row["total"] == pytest.approx(0.5 + row["reward"]["judged"])
        else:
            others += 1
            assert row["total"] == pytest.approx(0.5 * row["reward"][REWARD])
    kept = (tmp_path / "run" / "judges" / "grader.jsonl").read_text().splitlines()
    assert len(kept) == len(asked) > 2 and others > 2
    found = [row for row in rows(tmp_path / "run", "metrics") if "reward/judged/failed" in row]
    assert [row["reward/judged/failed"] for row in found] == [0.0] * 3
    assert [row["reward/abstained"] for row in found] == [0.0] * 3
