"""An iteration cut into the batches of its updates: whole groups, each once per epoch."""

import numpy as np

from grpo.algorithms.groups import Groups, rows_of_groups
from grpo.algorithms.losses import with_token_weights
from grpo.algorithms.objective import Objective
from grpo.data.order import permutation


def minibatch(
    groups: Groups,
    update: int,
    *,
    group: int,
    minibatches: int,
    order: tuple[int, int],
    limit: int,
    objective: Objective,
) -> Groups:
    """What update number `update` of an iteration learns from, weighed by itself."""
    prompts = len(groups.advantage_B) // group
    cut = {"group": group, "minibatches": minibatches, "order": order}
    chosen = groups.rows(rows_of_update(update, prompts, **cut))
    return with_token_weights(chosen, limit=limit, objective=objective)


def rows_of_update(
    update: int, prompts: int, *, group: int, minibatches: int, order: tuple[int, int]
) -> np.ndarray:
    """Which rows of an iteration an update learns from: whole groups, each once per epoch.

    `order` is the seed and the number of the iteration's first epoch: every epoch has its own cut.
    """
    epoch, part = divmod(update, minibatches)
    # One minibatch is no cut: the groups stay in the order in which they were sampled.
    is_cut, (seed, first_epoch) = minibatches > 1, order
    order_P = permutation(seed, first_epoch + epoch, prompts) if is_cut else np.arange(prompts)
    size = prompts // minibatches
    return rows_of_groups(order_P[part * size : (part + 1) * size], group)
