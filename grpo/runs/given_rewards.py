"""What the rewards of models have in common: they read a batch of completions as sampled.

Those that wait for others (`elsewhere`) are asked in a thread, while the policy goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from grpo.data.examples import Example
from grpo.runs.in_thread import begin, result_of
from models.policy import Policy


class Batch(NamedTuple):
    """B completions, and the policy as it stands: it wrote them, perhaps an iteration ago."""

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


class Reward(NamedTuple):
    """What gives values, and whether that runs nothing on the policy's devices."""

    read: Callable[[Batch], Values]
    elsewhere: bool


Given = Mapping[str, Reward]  # by name in a reward table


class Asked(NamedTuple):
    """A batch that is being read."""

    names: Sequence[str]
    here: dict[str, Values]
    elsewhere: Future[dict[str, Values]]


def ask(batch: Batch, given: Given) -> Asked:
    """Has a batch read: elsewhere from now on, by the models that are here at once."""
    elsewhere = begin(lambda: read(batch, given, elsewhere=True))
    return Asked([*given], read(batch, given, elsewhere=False), elsewhere)


def read(batch: Batch, given: Given, *, elsewhere: bool) -> dict[str, Values]:
    """What some of them say."""
    return {name: one.read(batch) for name, one in given.items() if one.elsewhere == elsewhere}


def given_to(
    asked: Asked, check: Callable[[], None]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The values of a batch by the names of the rewards, and the metrics of all of them.

    `check` is called while it waits, and may raise.
    """
    by_any = asked.here | result_of(asked.elsewhere, check)
    found = {name: by_any[name] for name in asked.names}
    metrics = {
        f"reward/{name}/{metric}": value
        for name, values in found.items()
        for metric, value in values.metrics.items()
    }
    return {name: values.value_B for name, values in found.items()}, metrics
