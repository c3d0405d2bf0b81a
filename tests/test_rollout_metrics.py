"""What is told of two groups of two completions, number by number."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.data.templates import TEMPLATES, prompt_text
from grpo.rewards.scores import Scores
from grpo.rollout.metrics import mean_of, rollout_metrics
from grpo.rollout.rollouts_jsonl import rollout_rows
from grpo.rollout.sampler import Rollout

NAN = float("nan")
FORM = "<reasoning>r</reasoning><answer>{}</answer>"
EXAMPLES = [{"id": f"e{n}", "question": f"{n}?", "answer": str(n)} for n in (1, 1, 2, 2)]
TEXTS = [FORM.format(1), FORM.format(2), FORM.format(2), FORM.format("2.0")]
UNREAD = jnp.zeros(0)
ROLLOUT = Rollout(
    ids_BT=UNREAD,
    mask_BT=UNREAD,
    completion_mask_BC=jnp.arange(9)[None, :] < jnp.array([4, 6, 5, 9])[:, None],
    truncated_B=jnp.array([False, False, False, True]),
    sample_logprob_BC=UNREAD,
)
SCORES = Scores(
    rewards={"right": np.array([1.0, 0.0, 1.0, NAN]), "short": np.array([0.5, 0.25, 0.0, 0.25])},
    parts={},
    failed={"right": 1, "short": 0},
    reasons={"right": "ValueError"},
    total=np.array([1.5, 0.25, 1.0, NAN]),
)
ADVANTAGE = np.array([[1, -1], [0, 0]], np.float32)


def test_metrics_by_hand():
    metrics = rollout_metrics(EXAMPLES, TEXTS, ROLLOUT, SCORES, ADVANTAGE)
    mean = 2.75 / 3
    assert metrics == pytest.approx({
        "reward/mean": mean,
        "reward/std": math.sqrt(((1.5 - mean) ** 2 + (0.25 - mean) ** 2 + (1 - mean) ** 2) / 3),
        "reward/right/mean": 2 / 3,
        "reward/right/std": math.sqrt(2) / 3,
        "reward/right/failed": 0.25,
        "reward/short/mean": 0.25,
        "reward/short/std": math.sqrt(2 / 64),
        "reward/short/failed": 0.0,
        "group/zero_variance": 0.5,  # the second: one known reward is compared with nothing
        "group/solved_all": 0.5,
        "group/solved_none": 0.0,
        "reward/abstained": 0.25,
        "advantage/std": math.sqrt(0.5),
        "advantage/max_abs": 1.0,
        "right": 0.75,
        "length/mean": 6.0,
        "length/max": 9.0,
        "truncated": 0.25,
    }, rel=1e-6)  # fmt: skip
    assert all(type(value) is float for value in metrics.values())


def test_nothing_has_a_reward():
    failed = SCORES._replace(total=np.full(4, NAN), rewards={"right": np.full(4, NAN)})
    metrics = rollout_metrics(EXAMPLES, TEXTS, ROLLOUT, failed, np.zeros((2, 2), np.float32))
    assert math.isnan(metrics["reward/mean"]) and math.isnan(metrics["reward/right/std"])
    assert metrics["reward/abstained"] == metrics["group/zero_variance"] == 1.0


def test_a_group_that_is_all_wrong():
    texts = [FORM.format(9), FORM.format(9), TEXTS[2], FORM.format(9)]
    metrics = rollout_metrics(EXAMPLES, texts, ROLLOUT, SCORES, ADVANTAGE)
    assert (metrics["group/solved_none"], metrics["group/solved_all"]) == (0.5, 0.0)
    assert metrics["right"] == 0.25


def test_a_row_for_every_completion():
    rows = rollout_rows({"stage": "rl", "step": 3}, EXAMPLES, TEXTS, ROLLOUT, SCORES, ADVANTAGE,
                        TEMPLATES["plain"])  # fmt: skip
    assert [row["completion"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == ["e1", "e1", "e2", "e2"]
    assert [row["gold"] for row in rows] == ["1", "1", "2", "2"]
    assert [row["group"] for row in rows] == [0, 0, 1, 1]
    assert [row["advantage"] for row in rows] == [1, -1, 0, 0]
    assert [row["tokens"] for row in rows] == [4, 6, 5, 9]
    assert [row["finish"] for row in rows] == ["stop", "stop", "stop", "length"]
    assert [row["total"] for row in rows[:3]] == [1.5, 0.25, 1.0] and math.isnan(rows[3]["total"])
    assert rows[1]["reward"] == {"right": 0.0, "short": 0.25}
    assert all(row["stage"] == "rl" and row["step"] == 3 for row in rows)
    assert rows[2]["prompt"] == prompt_text(EXAMPLES[2], TEMPLATES["plain"])


@pytest.mark.parametrize(("prompts", "group"), [(2, 3), (3, 2), (1, 6)])
def test_group_numbers_follow_the_shape(prompts, group):
    examples = [{"id": f"e{p}", "question": "?", "answer": "1"} for p in range(prompts)]
    repeated = [example for example in examples for _ in range(group)]
    six = ROLLOUT._replace(
        completion_mask_BC=np.arange(6)[None, :] < np.arange(6)[:, None],
        truncated_B=np.zeros(6, bool),
    )
    scores = Scores({"right": np.arange(6.0)}, {}, {"right": 0}, {}, np.arange(6.0))
    advantage = np.arange(6.0).reshape(prompts, group)
    rows = rollout_rows({}, repeated, ["x"] * 6, six, scores, advantage, TEMPLATES["plain"])
    assert [f"e{row['group']}" for row in rows] == [row["id"] for row in rows]
    assert [row["advantage"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_the_mean_over_rounds():
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 5.0}]) == {"a": 1.5, "b": 3.5}


def test_a_metric_of_some_rounds_is_their_mean():
    """A judge agrees with no gold where all completions of a round are wrong."""
    rounds = [{"a": 1.0}, {"a": 3.0, "reward/judged/agreement": 0.7}]
    for reports in (rounds, rounds[::-1]):
        assert mean_of(reports) == {"a": 2.0, "reward/judged/agreement": 0.7}
