"""What a judge is asked about: criteria with weights, and what their scores are worth together.

    r = clip(Σ_j w_j c_j / Σ_{w_j > 0} w_j, 0, 1)        c_j ∈ [0, 1]

A weight below 0 is that of a pitfall, which costs where it is met. So is Rubrics as Rewards
(arXiv:2507.17746), explicit mode, where pitfalls are phrased as what is to be avoided; in its
implicit mode a judge sees all criteria with their weights and gives one rating. RUBRICS are
predefined ones, in this project's words; those of a dataset are per question (rubrics of
grpo/data/rubrics.py, the column `rubric`). `steps` are per question too, and need no one to write
them: a criterion for each checkpoint of the worked solution, or where there is none its answer.

    generic      of any answer, after the paper's four general criteria
    pinocchio    accuracy, logic, form, and hallucinations, which count against all three (λ = 1):
                 (a + l + f) / 3 - h, which is held within [0, 1]
    right        whether the answer is right, and nothing else
    trace        the reasoning, whatever it ends with, and
    answer       the answer, whatever leads to it: what Kaggle's Tunix hackathon graded apart; which
                 words its judges were asked in is not known
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COLUMN = "column"  # the rubric of each example
STEPS = "steps"  # what the solution of each example passes through


class Criterion(NamedTuple):
    """What is asked about, and how much it counts."""

    title: str
    description: str
    weight: float


RUBRICS: dict[str, tuple[Criterion, ...]] = {
    "generic": (
        Criterion("Correct", "What is said is true, and the final answer is right.", 1.0),
        Criterion("Complete", "Nothing that the question asks for is missing.", 0.7),
        Criterion("Reasoned", "The reasoning leads to the answer step by step.", 0.7),
        Criterion("Clear", "It is well ordered and says nothing twice.", 0.3),
    ),
    "pinocchio": (
        Criterion("Accuracy", "The final answer is right.", 1.0),
        Criterion("Logic", "Each step follows from the question or from steps before it.", 1.0),
        Criterion("Form", "Reasoning first, then the answer alone, each between its tags.", 1.0),
        Criterion("Hallucination", "It claims what is neither given nor follows.", -3.0),
    ),
    "right": (Criterion("Right", "The final answer is right.", 1.0),),
    "trace": (
        Criterion(
            "Sound", "Each step of the reasoning is true, and follows from those before.", 1.0
        ),
        Criterion(
            "Whole", "The reasoning leads from the question to the answer, no gap in it.", 0.7
        ),
        Criterion("Readable", "The reasoning is well ordered, to the point, nothing twice.", 0.3),
    ),
    "answer": (
        Criterion("Right", "The final answer is right.", 1.0),
        Criterion("To the question", "The final answer is what is asked for, and all of it.", 0.7),
        Criterion("Stated", "The final answer stands apart from the reasoning, and alone.", 0.3),
    ),
}


def criteria_of(example: Mapping, rubric: str) -> tuple[Criterion, ...]:
    """The criteria for an example: a predefined rubric, or its own."""
    if rubric == STEPS:
        steps = example["checkpoints"] or [example["answer"]]
        return tuple(Criterion(step, f"It comes to {step}.", 1.0) for step in steps)
    if rubric != COLUMN:
        return RUBRICS[rubric]
    return tuple(Criterion(**item) for item in example["rubric"])


def together(criteria: Sequence[Criterion], scores: Sequence[float]) -> float:
    """r of the criteria's scores; NaN where one is missing."""
    w_J, c_J = np.array([c.weight for c in criteria]), np.array(scores, float)
    return float(np.clip((w_J * c_J).sum() / w_J[w_J > 0].sum(), 0.0, 1.0))
