"""Judges in a GRPO stage: a model of ours, its recording, and what is refused."""

import json
import math

import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.judges.asking import Reply, question
from grpo.pipeline import STAGES
from grpo.runs.policy_judge import PolicyJudge, choices_of, judge_program, reply_of
from grpo.runs.stage_loop import TroubleError
from models.chat import encode_chat
from models.policy import logits
from tests.small_run import (
    assert_same_run,
    launch,
    rows,
    small,
    small_grpo,
    small_sft,
    stop_at,
    watched,
    workshop,
)
from tests.tiny_run import policy_of

SECTION = base.judge(
    model="base", prompt="right", rubric="right", scale="yes_no", least_mass=0.0,
    max_prompt=128, batch=3,
)  # fmt: skip


def config_of(**fields) -> base.ConfigDict:
    config = small()
    config.model.whole = ("yes", "no")
    config.judges.grader = SECTION.copy_and_resolve_references()
    config.judges.grader.update(fields)
    config.stages.grpo = stage = small_grpo()
    stage.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    config.pipeline = ("grpo",)
    return config


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    with workshop():
        workdir = tmp_path_factory.mktemp("judged") / "straight"
        assert launch(config_of(), workdir) == 0
        yield workdir


def test_its_words_are_those_of_the_tokenizer():
    tokenizer = policy_of().own_tokenizer
    (ids,) = {choices_of(tokenizer, "five")}
    assert [tokenizer.decode([one[0]]) for one in ids] == ["1", "2", "3", "4", "5"]


def test_soft_scores_are_those_of_all_logits():
    """p(5)·1 + p(4)·.75 + ... over p of all five, from the logits of each prompt alone."""
    policy = policy_of()
    section = {**SECTION.to_dict(), "scale": "five", "seed": 0}
    choices = choices_of(policy.own_tokenizer, "five")
    judge = PolicyJudge(policy, judge_program(section, policy, choices), section)
    questions = [question(text, {}) for text in ("How?", "Why are 3 of them here?", "1", "And 4")]
    replies = judge(questions)
    for asked, reply in zip(questions, replies, strict=True):
        ids = encode_chat(
            policy.own_tokenizer, [{"role": "user", "content": asked.prompt}], reply=False
        )
        ids += [policy.own_tokenizer.start_of_turn_id]
        ids += policy.own_tokenizer.encode("model\n", bos=False)
        z_V = np.asarray(logits(policy, [ids])[0][-1], float)
        p_V = np.exp(z_V - z_V.max()) / np.exp(z_V - z_V.max()).sum()
        p_K = np.array([p_V[one[0]] for one in choices])
        worth = (p_K * [0, 0.25, 0.5, 0.75, 1]).sum() / p_K.sum()
        assert reply.score == pytest.approx(worth, abs=1e-5)
        said = json.loads(reply.text or "")
        assert [*said] == ["1", "2", "3", "4", "5"]
        assert [*said.values()] == pytest.approx(p_K, abs=1e-6)


def test_a_long_prompt_has_no_verdict():
    policy = policy_of()
    section = {**SECTION.to_dict(), "scale": "five", "max_prompt": 24, "seed": 0}
    program = judge_program(section, policy, choices_of(policy.own_tokenizer, "five"))
    judge = PolicyJudge(policy, program, section)
    short, long = (question(text, {}) for text in ("a", "1 2 3 4 5 6 7 8 9 " * 4))
    replies = judge([long, short, long])
    assert [reply.score is None for reply in replies] == [True, False, True]
    assert (replies[0].reason or "").startswith("too long: ")


def reply(p, key="0" * 64, **fields):
    section = {"scale": "yes_no", "scores": "soft", "least_mass": 0.5, "temperature": 0.0,
               "seed": 0, **fields}  # fmt: skip
    return reply_of(np.log(p), key, section)


@pytest.mark.parametrize(("p", "score"), [
    ([0.2, 0.6], 0.75), ([0.5, 0.5], 0.5), ([0.0, 0.5], 1.0), ([0.6, 0.2], 0.25),
])  # fmt: skip
def test_yes_over_yes_and_no(p, score):
    with np.errstate(divide="ignore"):
        assert reply(p).score == pytest.approx(score)


def test_a_model_that_does_not_mean_the_scale():
    assert (reply([0.1, 0.3]).reason or "").startswith("off scale: 0.400")
    assert reply([0.1, 0.3], least_mass=0.4).score == pytest.approx(0.75)
    assert reply([math.nan, 0.9]).score is None


def test_hard_scores():
    """The likeliest word; or drawn, as often as it is likely and always alike for a key."""
    assert reply([0.3, 0.6], scores="hard").score == 1.0
    keys = [question(str(n), {}).key for n in range(2000)]

    def drawn(temperature):
        hard = {"scores": "hard", "temperature": temperature}
        return [reply([0.3, 0.6], key=key, **hard).score or 0.0 for key in keys]

    assert drawn(1.0) == drawn(1.0) and set(drawn(1.0)) == {0.0, 1.0}
    assert np.mean(drawn(1.0)) == pytest.approx(2 / 3, abs=0.04)
    assert np.mean(drawn(0.5)) == pytest.approx(4 / 5, abs=0.04)  # .36 / (.09 + .36)


def test_verdicts_are_logged_and_kept(straight):
    """Each completion's reward is that of a reply in the recording, a row for each question."""
    values = [row["reward"]["judged"] for row in rows(straight, "rollouts")]
    kept = [
        json.loads(line) for line in (straight / "judges" / "grader.jsonl").read_text().splitlines()
    ]
    assert len({row["key"] for row in kept}) == len(kept) > 0
    assert {round(value, 9) for value in values} <= {round(row["score"], 9) for row in kept}
    (first, *_) = [row for row in rows(straight, "metrics") if "reward/judged/failed" in row]
    assert first["reward/judged/failed"] == 0.0 and "reward/judged/cached" in first
    assert 0 < first["reward/judged/entropy"] <= math.log(2)


def test_a_run_goes_on_bit_by_bit(straight, tmp_path):
    with workshop():
        with watched(stop_at("grpo update 2")):
            assert launch(config_of(), tmp_path / "stopped") == 75
        assert launch(config_of(), tmp_path / "stopped") == 0
    assert_same_run(straight, tmp_path / "stopped")
    recordings = [w / "judges" / "grader.jsonl" for w in (straight, tmp_path / "stopped")]
    assert recordings[0].read_bytes() == recordings[1].read_bytes()


def test_a_replay_is_the_same_run_without_the_judge(straight, tmp_path, monkeypatch):
    """The recording answers: the model is not asked, and every array is the same."""

    def gone(self, questions):
        raise AssertionError("the judge was asked")

    monkeypatch.setattr(PolicyJudge, "__call__", gone)
    recording = straight / "judges" / "grader.jsonl"
    with workshop():
        assert launch(config_of(replay=str(recording)), tmp_path / "replayed") == 0
    ours, theirs = (
        [{k: v for k, v in row.items() if "cached" not in k} for row in rows(w, "metrics")]
        for w in (straight, tmp_path / "replayed")
    )
    assert ours == theirs
    assert rows(straight, "rollouts") == rows(tmp_path / "replayed", "rollouts")


def test_a_judge_that_is_gone_costs_no_updates(straight, tmp_path, monkeypatch):
    """The run stops with all that it had learnt, and goes on bit by bit when it is back."""
    config, asked, real = config_of(), [], PolicyJudge.__call__
    config.patience = 1

    def leaving(self, questions):
        asked.append(len(questions))
        if len(asked) < 3:
            return real(self, questions)
        return [Reply(reason="http_500: gone", attempts=1) for _ in questions]

    with workshop():
        with monkeypatch.context() as patch:
            patch.setattr(PolicyJudge, "__call__", leaving)
            with pytest.raises(
                TroubleError, match="100% of the completions have no reward, 1 time"
            ):
                launch(config, tmp_path / "run")
        assert [row["step"] for row in rows(tmp_path / "run", "metrics") if "loss" in row] == [1, 2]
        assert launch(config, tmp_path / "run") == 0
    ours, theirs = (
        [{k: v for k, v in row.items() if "/cached" not in k} for row in rows(w, "metrics")]
        for w in (straight, tmp_path / "run")
    )
    assert ours == theirs and rows(straight, "rollouts") == rows(tmp_path / "run", "rollouts")


@pytest.mark.parametrize(("fields", "wanted"), [
    ({"model": None}, "judges.grader.model, url: name one of them"),
    ({"url": "http://h/v1", "name": "m"}, "judges.grader.model, url: name one of them"),
    ({"model": "nobody"}, "judges.grader.model='nobody': is neither a stage"),
    ({"model": None, "url": "https://me:secret@h/v1", "name": "m"}, "judges.grader.url: has a us"),
    ({"model": None, "url": "https://host/v1"}, "judges.grader.name=None"),
    ({"model": None, "url": "https://h/v1", "name": "m", "key": "NO_SUCH"}, "judges.grader.key"),
    ({"rubric": "column"}, "judges.grader.prompt='right'"),
    ({"rubric": "steps"}, "judges.grader.prompt='right'"),
    ({"prompt": "found"}, "judges.grader.prompt='found'"),
    ({"replay": "nowhere.jsonl"}, "judges.grader.replay='nowhere.jsonl': no such file"),
    ({"rubric": "best"}, "judges.grader.rubric='best'"),
    ({"scale": "ten"}, "judges.grader.scale='ten'"),
    ({"batch": 0}, "judges.grader.batch=0"),
])  # fmt: skip
def test_configs_that_make_no_sense(fields, wanted):
    found = problems(config_of(**fields).to_dict(), STAGES)
    assert len(found) == 1 and found[0].startswith(wanted), found
    assert "secret" not in "".join(found)


@pytest.mark.parametrize("model", ["grpo", "later"])
def test_a_judge_is_there_before_it_is_asked(model):
    """The end of a stage is not known before that stage is over."""
    config = config_of(model=model)
    config.stages.later = small_sft()
    config.pipeline = ("grpo", "later")
    (line,) = problems(config.to_dict(), STAGES)
    assert line.startswith(f"stages.grpo.rewards.judged.options.judge: '{model}' is neither base")
    config.pipeline = ("later", "grpo")
    assert (problems(config.to_dict(), STAGES) == []) == (model == "later")


def test_rewards_that_name_no_judge_or_cannot_hold_one():
    config = config_of()
    config.stages.grpo.rewards.judged.options.judge = "graber"
    (line,) = problems(config.to_dict(), STAGES)
    assert line.startswith("stages.grpo.rewards.judged.options.judge='graber': is none of judges")
    assert "grader" in line
    config = config_of()
    config.stages.grpo.rewards.judged.high = 0.5
    (line,) = problems(config.to_dict(), STAGES)
    assert line.startswith("stages.grpo.rewards.judged: verdicts are from 0 to 1")
