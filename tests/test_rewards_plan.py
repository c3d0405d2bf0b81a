"""The reward of a plan: by hand on blocks, against lists on random ones, and of hostile ones."""

import numpy as np
import pytest

from grpo.data.making import make
from grpo.data.worlds import WORLDS
from grpo.rewards.plan import plan, steps_of
from grpo.rewards.scores import score
from grpo.rewards.table import reward_table

SWAP = {  # A on B, C beside them; wanted: B on A on C, which takes two steps
    "answer": "A to C, B to A",
    "strips": {
        "facts": ["A on B", "A clear", "B on table", "C on table", "C clear"],
        "goal": ["A on C", "B on A"],
        "actions": [
            {"step": "A to C", "needs": ["A on B", "A clear", "C clear"],
             "adds": ["A on C", "B clear"], "deletes": ["A on B", "C clear"]},
            {"step": "A to table", "needs": ["A on B", "A clear"],
             "adds": ["A on table", "B clear"], "deletes": ["A on B"]},
            {"step": "A to C", "needs": ["A on table", "A clear", "C clear"],
             "adds": ["A on C"], "deletes": ["A on table", "C clear"]},
            {"step": "B to A", "needs": ["B on table", "B clear", "A clear"],
             "adds": ["B on A"], "deletes": ["B on table", "A clear"]},
        ],
    },
}  # fmt: skip


def said(answer: str) -> str:
    return f"<reasoning>so</reasoning><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("A to C, B to A", 1.0),
        (" A  to C;\nB to A. ", 1.0),
        ("A to table, A to C, B to A", 1.0),  # a detour
        ("A to C", 0.1),  # half of what the gold plan has, no goal
        ("A to table", 0.1),
        ("A to C, A to C", 0.1),  # the second one cannot be done
        ("A to C, B to A, B to A", 0.2 * 2 / 3),  # the goal was there, and then a wrong step
        ("B to A, A to C", 0.0),
        ("C to A", 0.0),
        ("A to c, B to A", 0.0),
        (",;.", 0.0),
    ],
)
def test_by_hand(answer, value):
    assert plan(SWAP, said(answer), prefix=0.2) == pytest.approx(value, abs=1e-12)


def test_the_share_of_the_prefix():
    for prefix in (0.0, 0.5, 1.0):
        assert plan(SWAP, said("A to C"), prefix=prefix) == prefix / 2
        assert plan(SWAP, said(SWAP["answer"]), prefix=prefix) == 1.0


@pytest.mark.parametrize("text", ["A to C, B to A", "", "<answer>A to C, B to A</answer>"])
def test_without_the_form_it_is_nothing(text):
    assert plan(SWAP, text, prefix=0.2) == 0.0


def test_gold_plans_of_the_world_are_worth_1_and_others_less():
    """A random other example's plan reaches this one's goal only if it is one of its plans."""
    examples = make("planning", WORLDS["planning"], 0, 200, [2, 3, 4], "test", 1.0, 0.0)
    random, worth = np.random.RandomState(0), []
    for example in examples:
        assert plan(example, said(example["answer"]), prefix=0.2) == 1.0
        steps = example["answer"].split(", ")
        cut = plan(example, said(", ".join(steps[:-1])), prefix=0.2)
        assert cut == pytest.approx(0.2 * (len(steps) - 1) / len(steps))
        other = examples[random.randint(len(examples))]["answer"]
        worth.append(plan(example, said(other), prefix=0.2))
    assert min(worth) >= 0 and sum(value == 1.0 for value in worth) < 20


def test_in_a_table():
    entry = {"name": "plan", "weight": 1, "low": 0, "high": 1, "options": {"prefix": 0.2}}
    table = reward_table([entry])
    texts = [said(SWAP["answer"]), said("\ud800\0‮" * 9), said("A to C," * 10_000), "<answer>"]
    scores = score(table, [SWAP] * 4, texts, seconds=5.0)
    assert scores.total.tolist() == [1.0, 0.0, pytest.approx(0.2 / 10_000), 0.0]
    scores = score(table, [{"answer": "72"}], [said("72")], seconds=5.0)
    assert scores.reasons == {"plan": "ValueError: the example has no world: plan needs its strips"}
    with pytest.raises(ValueError, match=r"rewards\.plan\.options\.prefix: is missing"):
        reward_table([{**entry, "options": {}}])


def test_steps():
    assert steps_of("A to B,B to  C; \n C to A.") == ["A to B", "B to C", "C to A"]
