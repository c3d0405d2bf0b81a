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


Given = Mapping[str, Callable[[Batch], np.ndarray]]  # name in a reward table -> reward_B
