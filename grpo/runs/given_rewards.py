"""What the rewards of models have in common: they read a batch of completions as sampled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.examples import Example
from models.policy import Policy


class Batch(NamedTuple):
    """B completions, and the policy that wrote them."""

    ids_BT: Any
    mask_BT: Any
    examples: Sequence[Example]  # of each row
    texts: Sequence[str]
    policy: Policy
    asked: Mapping[str, np.ndarray]  # by judged reward, whether it is asked about each


class Values(NamedTuple):
    """What a model says of a batch."""

    value_B: np.ndarray  # NaN where it has nothing to say
    metrics: Mapping[str, float]


Given = Mapping[str, Callable[[Batch], Values]]  # by name in a reward table


def given_to(batch: Batch, given: Given) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The values of a batch by the names of the rewards, and the metrics of all of them."""
    found = {name: reward(batch) for name, reward in given.items()}
    metrics = {
        f"reward/{name}/{metric}": value
        for name, values in found.items()
        for metric, value in values.metrics.items()
    }
    return {name: values.value_B for name, values in found.items()}, metrics
