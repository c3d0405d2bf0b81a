"""Groups of completions: what an iteration samples, scores, stores and learns from.

The first fields are those of a rollout (grpo/rollout/sampler.py), by the same names; scoring adds
the others. Row p·G + g is completion g of prompt p. The arrays wait on the host between the updates
of an iteration, in a checkpoint if the run stops there, and the loss reads them by name: a field
that is added here and to the rollout is carried all the way.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = Any  # NumPy's on the host, JAX's inside of a loss


class Groups(NamedTuple):
    """P groups of G completions; None is what has not been computed, or is not needed."""

    # as sampled: the fields of a Rollout
    ids_BT: Array  # T = I + C: prompts, padded on the left, and completions
    mask_BT: Array
    completion_mask_BC: Array  # the first stop token included
    truncated_B: Array  # C tokens and none of them a stop token
    sample_logprob_BC: Array  # as the sampler computed it
    # as scored
    advantage_B: Array = None
    spread_B: Array = None  # whether the rewards of the row's group differ
    old_logprob_BC: Array = None  # None: the policy as it is (one update per rollout)
    ref_logprob_BC: Array = None  # None: no reference is needed
    teacher_logprob_BC: Array = None  # None: there is no teacher
    # fixed over all rows of an update: losses.py, with_token_weights
    weight_BC: Array = None  # of the loss
    share_BC: Array = None  # of the metrics: 1 / (tokens of the update)

    def each(self, change: Callable[[Array], Array]) -> "Groups":
        """The same with every array changed."""
        return Groups(*(None if x is None else change(x) for x in self))

    def rows(self, rows: Array) -> "Groups":
        """Some rows of all arrays."""
        return self.each(lambda x: x[rows])

    def stored(self) -> dict[str, Array]:
        """The arrays that are there, on the host, for a checkpoint: `groups_of` is the inverse."""
        return {name: np.asarray(x) for name, x in self._asdict().items() if x is not None}


def groups_of(*parts: Mapping[str, Array]) -> Groups:
    """Groups of arrays by name, such as those of a rollout and of its scores."""
    return Groups(**{name: x for part in parts for name, x in part.items()})


def has_spread(groups: Groups, group: int) -> Array:
    """Per group, whether a completion is better than another: whether it has something to teach."""
    return groups.spread_B.reshape(-1, group)[:, 0]


def rows_of_groups(number_P: Array, group: int) -> Array:
    """The rows of the groups with these numbers."""
    return (number_P[:, None] * group + np.arange(group)).reshape(-1)
