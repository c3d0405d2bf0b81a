"""The order of examples, as a pure function of a seed and an index.

Example number i of a run is example_at(seed, i, size): each epoch i // size is a permutation of its
own, so that a run's place in its data is one integer, and there is no state to save.
"""

import functools
from collections.abc import Callable

import numpy as np


@functools.lru_cache(maxsize=4)  # a batch meets two epochs at most
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch."""
    # RandomState, unlike Generator, promises the same numbers in every version of NumPy (NEP 19).
    order = np.random.RandomState([seed, epoch]).permutation(size)
    order.setflags(write=False)  # it is shared
    return order


def usual(seed: int, size: int) -> Callable[[int], int]:
    """The order of `size` examples: from an index to a place."""
    return functools.partial(example_at, seed, size=size)


def example_at(seed: int, index: int, size: int) -> int:
    """Which of `size` examples comes at an index, counted over all epochs."""
    if size < 1 or index < 0:
        raise ValueError(f"index={index}, size={size}: needs an index from 0 on and an example")
    return int(permutation(seed, index // size, size)[index % size])
