"""Rewards that a model gives: the stage that has the model computes them, from tokens.

They stand in a table like the functions of texts, with their options; the values of a batch are put
in their place (`with_values` of table.py), and none of these is ever called.

    learned                  a reward model's
    reference_probability    how likely the policy holds the reference answer, for its reasoning

grpo/runs/learned_reward.py and reference_reward.py have the formulas.
"""

from collections.abc import Mapping, Sequence


def learned(
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    model: str,
    least_accuracy: float,
    whitened: bool,
    clip: float,
) -> list[float]:
    """What the reward model of stage `model` says, at most `clip` away from 0."""
    raise NotImplementedError("a reward model reads tokens: the stage gives its values")


def reference_probability(
    examples: Sequence[Mapping], completions: Sequence[str], *, max_answer: int
) -> list[float]:
    """How much likelier the answer is after the reasoning than after none; 0 to 1."""
    raise NotImplementedError("the policy reads tokens: the stage gives its values")


GIVEN = {"learned": learned, "reference_probability": reference_probability}
