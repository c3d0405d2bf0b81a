"""Groups of completions as host arrays: what the updates of an iteration learn from.

They wait in the memory of the host between the updates, and in a checkpoint if the run stops there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.algorithms.losses import freeze
from grpo.algorithms.objective import Objective
from grpo.data.order import permutation
from grpo.training.scoring import Batch

Array = Any  # NumPy's on the host


class Groups(NamedTuple):
    """P groups of G completions: row p·G + g is completion g of prompt p."""

    ids_BT: Array
    mask_BT: Array
    mask_BC: Array  # of the completions
    truncated_B: Array
    advantage_B: Array
    spread_B: Array  # whether the rewards of its group differ
    sample_logprob_BC: Array
    old_logprob_BC: Array | None = None  # None: the policy as it is
    ref_logprob_BC: Array | None = None  # None: there is no reference

    def on_host(self) -> "Groups":
        """The same as NumPy's arrays."""
        return Groups(*(None if x is None else np.asarray(x) for x in self))

    def stored(self) -> dict[str, Array]:
        """The arrays that are there, for a checkpoint; `Groups(**stored)` is the inverse."""
        return {name: x for name, x in self._asdict().items() if x is not None}

    def rows(self, rows: Array) -> "Groups":
        """Some rows of all arrays."""
        return Groups(*(None if x is None else x[rows] for x in self))


def has_spread(groups: Groups, group: int) -> Array:
    """Per group, whether a completion is better than another: whether it has something to teach."""
    return groups.spread_B.reshape(-1, group)[:, 0]


def choose(rounds: Sequence[Groups], group: int) -> Groups:
    """As many groups as a round has, those with a spread first; the others are emptied.

    An empty group has no tokens: it counts in no mean of the loss, and its prompt is passed over.
    """
    columns = zip(*rounds, strict=True)
    together = Groups(*(None if parts[0] is None else np.concatenate(parts) for parts in columns))
    spread_P = has_spread(together, group)
    prompts = len(spread_P) // len(rounds)
    chosen_P = np.argsort(~spread_P, kind="stable")[:prompts]
    rows = (chosen_P[:, None] * group + np.arange(group)).reshape(-1)
    chosen, is_used_B = together.rows(rows), np.repeat(spread_P[chosen_P], group)
    return chosen._replace(mask_BC=chosen.mask_BC & is_used_B[:, None])


def minibatch(
    groups: Groups,
    update: int,
    *,
    group: int,
    minibatches: int,
    order: tuple[int, int],
    limit: int,
    objective: Objective,
) -> Batch:
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
    chosen = groups.rows((chosen_P[:, None] * group + np.arange(group)).reshape(-1))
    experience = freeze(
        mask_BC=chosen.mask_BC,
        truncated_B=chosen.truncated_B,
        advantage_B=chosen.advantage_B,
        old_logprob_BC=chosen.old_logprob_BC,
        ref_logprob_BC=chosen.ref_logprob_BC,
        sample_logprob_BC=chosen.sample_logprob_BC,
        limit=limit,
        objective=objective,
    )
    return Batch(chosen.ids_BT, chosen.mask_BT, experience)
