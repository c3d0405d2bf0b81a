"""Random weights that a reference and our tests draw alike, so that no fixture has to store them.

`np.random.RandomState` is frozen: its streams are the same in every NumPy.
"""

import numpy as np


def draw(shapes: dict[str, list[int]], seed: int, scale: float) -> dict[str, np.ndarray]:
    """A float32 array per name, in order: vectors of spread 0.1, the rest of spread `scale`."""
    random = np.random.RandomState(seed)
    return {
        name: np.asarray(
            random.standard_normal(shape) * (0.1 if len(shape) == 1 else scale), np.float32
        )
        for name, shape in shapes.items()
    }


def draw_ids(seed: int, batch: int, length: int, vocab: int) -> np.ndarray:
    """Token ids from 3 on; ids below are special to the references."""
    return np.random.RandomState(seed).randint(3, vocab, (batch, length)).astype(np.int32)
