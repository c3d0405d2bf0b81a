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
    """What update number `update` of an iteration learns from: whole groups, each once per epoch.

    `order` is the seed and the number of the iteration's first epoch: every epoch has its own cut.
    """
    epoch, part = divmod(update, minibatches)
    prompts = len(groups.advantage_B) // group
    # One minibatch is no cut: the groups stay in the order in which they were sampled.
    is_cut, (seed, first_epoch) = minibatches > 1, order
    order_P = permutation(seed, first_epoch + epoch, prompts) if is_cut else np.arange(prompts)
    size = prompts // minibatches
    chosen_P = order_P[part * size : (part + 1) * size]
    chosen = groups.rows(rows_of_groups(chosen_P, group))
    return with_token_weights(chosen, limit=limit, objective=objective)
