"""A batch that is sampled and not yet scored, as it waits for its verdicts and in a checkpoint.

It has what only the policy that sampled it could say: the tokens and their log-probs. Its prompts
follow from the order of the examples, its rewards from its texts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from grpo.rollout.frozen import Frozen
from grpo.rollout.sampler import Rollout
from models.sharding import put_rows


class Sampled(NamedTuple):
    """A batch, and when the policy was the one that sampled it."""

    rollout: Rollout
    frozen: Frozen
    iteration: int  # before whose updates

    def stored(self) -> dict[str, np.ndarray]:
        """The arrays on the host, by name: `sampled_of` is the inverse."""
        arrays = {**self.rollout._asdict(), **self.frozen._asdict()}
        arrays["iteration"] = np.int32(self.iteration)
        return {name: np.asarray(x) for name, x in arrays.items() if x is not None}


def sampled_of(arrays: Mapping[str, Any], mesh: Mesh | None) -> Sampled:
    """A batch that was stored, its rows where a sampler leaves them."""

    def placed(name: str) -> Any:
        x = arrays.get(name)
        return None if x is None else put_rows(x, mesh)

    return Sampled(
        Rollout(*map(placed, Rollout._fields)),
        Frozen(*map(placed, Frozen._fields)),
        int(arrays["iteration"]),
    )
