"""An iteration's groups: examples in their order, completed by the policy as it stands.

Dynamic sampling (DAPO, arXiv:2503.14476) leaves out the groups in which no completion is better
than another ("drop"), and draws new prompts in their place ("refill"), for `max_rounds` rounds at
most; places that stay empty count in no mean.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.algorithms.groups import Groups, has_spread, rows_of_groups
from grpo.algorithms.rewards_to_advantages import Round
from grpo.data.examples import Example
from grpo.rollout.metrics import mean_of


class Collected(NamedTuple):
    """Groups, and what is written down of them: metrics, and a row per completion."""

    groups: Groups
    metrics: dict[str, float]
    rows: list[dict[str, Any]]  # of all rounds
    rounds: list[Round]
    row_B: np.ndarray  # of the rows of the groups, which of `rows` they are


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
    groups, row_B = rounds[0].groups, rounds[0].row_B
    if dynamic_sampling != "off":
        groups, row_B = choose([round.groups for round in rounds], group)
    collected = Collected(
        groups=groups,
        metrics=mean_of([round.metrics for round in rounds]),
        rows=[row for round in rounds for row in round.rows],
        rounds=[one for round in rounds for one in round.rounds],
        row_B=row_B,
    )
    return collected, len(rounds)


def choose(rounds: Sequence[Groups], group: int) -> tuple[Groups, np.ndarray]:
    """As many groups as a round has, those with a spread first, and which rows of all these are.

    The others are emptied: a group without tokens counts in no mean of the loss, and its prompt is
    passed over.
    """
    columns = zip(*rounds, strict=True)
    together = Groups(*(None if parts[0] is None else np.concatenate(parts) for parts in columns))
    spread_P = has_spread(together, group)
    prompts = len(spread_P) // len(rounds)
    chosen_P = np.argsort(~spread_P, kind="stable")[:prompts]
    row_B = rows_of_groups(chosen_P, group)
    chosen = together.rows(row_B)
    is_used_B1 = np.repeat(spread_P[chosen_P], group)[:, None]
    return chosen._replace(completion_mask_BC=chosen.completion_mask_BC & is_used_B1), row_B
