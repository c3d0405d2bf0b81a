"""Rewards that a model gives: the stage that has the model computes them, from tokens.

They stand in a table like the functions of texts, with their options; the values of a batch are put
in their place (`with_values` of table.py), and none of these is ever called.

    learned                a reward model's:  grpo/runs/learned_reward.py
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


GIVEN = {"learned": learned}
