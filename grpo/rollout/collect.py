"""An iteration's groups: examples in their order, completed by the policy as it stands.

Dynamic sampling (DAPO, arXiv:2503.14476) leaves out the groups in which no completion is better
than another ("drop"), and draws new prompts in their place ("refill"), for `max_rounds` rounds at
most; places that stay empty count in no mean.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.algorithms.groups import Groups, has_spread, rows_of_groups
from grpo.data.examples import Example
from grpo.rollout.metrics import mean_of


class Collected(NamedTuple):
    """Groups, and what is written down of them: metrics, and a row per completion."""

    groups: Groups
    metrics: dict[str, float]
    rows: list[dict[str, Any]]


def examples_from(
    train: Sequence[Example], place_of: Callable[[int], int], first: int, count: int
) -> list[Example]:
    """The examples number first, first + 1, ... of an order, which has a place for each."""
    return [train[place_of(first + p)] for p in range(count)]


def collect_rounds(
    play: Callable[[int], Collected],
    *,
    prompts: int,
    group: int,
    dynamic_sampling: str,
    max_rounds: int,
) -> tuple[Collected, int]:
    """As many rounds of `prompts` groups as it takes, and how many these were."""
    rounds: list[Collected] = []
    useful = 0
    while len(rounds) < max_rounds and useful < prompts:
        rounds.append(play(len(rounds)))
        useful += int(has_spread(rounds[-1].groups, group).sum())
    groups = rounds[0].groups
    if dynamic_sampling != "off":
        groups = choose([round.groups for round in rounds], group)
    metrics = mean_of([round.metrics for round in rounds])
    return Collected(groups, metrics, [row for round in rounds for row in round.rows]), len(rounds)


def choose(rounds: Sequence[Groups], group: int) -> Groups:
    """As many groups as a round has, those with a spread first; the others are emptied.

    An empty group has no tokens: it counts in no mean of the loss, and its prompt is passed over.
    """
    columns = zip(*rounds, strict=True)
    together = Groups(*(None if parts[0] is None else np.concatenate(parts) for parts in columns))
    spread_P = has_spread(together, group)
    prompts = len(spread_P) // len(rounds)
    chosen_P = np.argsort(~spread_P, kind="stable")[:prompts]
    chosen = together.rows(rows_of_groups(chosen_P, group))
    is_used_B1 = np.repeat(spread_P[chosen_P], group)[:, None]
    return chosen._replace(completion_mask_BC=chosen.completion_mask_BC & is_used_B1)
