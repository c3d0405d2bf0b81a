"""The weights of tokens as printed matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.aggregation import token_weights

MASK = jnp.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("aggregation", "rows"),
    [  # 7 tokens in 3 rows; the third has none
        ("token", [1 / 7, 1 / 7, 0, 1 / 7]),
        ("sequence", [1 / 12, 1 / 3, 0, 1 / 6]),
        ("constant", [1 / 30, 1 / 30, 0, 1 / 30]),
        ("sum", [1 / 3, 1 / 3, 0, 1 / 3]),
    ],
)
def test_by_hand(aggregation, rows):
    weight_BC = token_weights(MASK, aggregation=aggregation, constant=10)
    np.testing.assert_allclose(weight_BC, np.array(rows)[:, None] * np.asarray(MASK), rtol=1e-6)


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant", "sum"])
def test_padding_counts_for_nothing(aggregation):
    wide = jnp.pad(MASK, ((0, 3), (0, 5)))
    weight_BC = token_weights(wide, aggregation=aggregation, constant=10)
    np.testing.assert_array_equal(
        weight_BC[:4, :4], token_weights(MASK, aggregation=aggregation, constant=10)
    )
    assert not np.asarray(token_weights(0 * MASK, aggregation=aggregation, constant=10)).any()
