"""Rewards that a model gives: the stage that has the model computes them.

    learned                  a reward model's
    reference_probability    how likely the policy holds the reference answer, for its reasoning
    judged, held_out_judged  verdicts of judges; the second one is for a judge that is not trained
                             by, to see where the policy pleases the first one only: weight 0

They are functions like the others, and return what they are given: as the keyword `given`, the
values of a batch (`with_values` of table.py). Their options are the stage's to read; the formulas
stand in grpo/runs/learned_reward.py, reference_reward.py and judged_reward.py. Without a stage they
have no value.

Judges cost time or money, and are asked only where their verdict counts (`asked_about` of
scores.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np


def learned(
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    model: str,
    least_accuracy: float,
    whitened: bool,
    clip: float,
    given: np.ndarray,
) -> np.ndarray:
    """What the reward model of stage `model` says, at most `clip` away from 0."""
    return given


def reference_probability(
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    max_answer: int,
    given: np.ndarray,
) -> np.ndarray:
    """How much likelier the answer is after the reasoning than after none; 0 to 1."""
    return given


def judged(
    examples: Sequence[Mapping], completions: Sequence[str], *, judge: str, given: np.ndarray
) -> np.ndarray:
    """What the judge of this name in `judges` says; 0 to 1."""
    return given


JUDGED = ("judged", "held_out_judged")
GIVEN = {
    "learned": learned,
    "reference_probability": reference_probability,
    **dict.fromkeys(JUDGED, judged),
}
