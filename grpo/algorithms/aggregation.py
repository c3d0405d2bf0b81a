"""From a loss per token to one number: Σ weight · loss, with weights fixed over the whole batch.

    token      1 / (tokens of the batch)                     DAPO, arXiv:2503.14476, which divides
                                                             by the tokens of the group
    sequence   1 / (rows of the batch · tokens of the row)   GRPO, arXiv:2402.03300
    constant   1 / (rows of the batch · constant)            Dr. GRPO, arXiv:2503.20783
    sum        1 / (rows of the batch)                       RLOO, arXiv:2402.14740

Rows without tokens (padding, or masked out) count as no rows. Since the weights are made once,
before a batch is cut into microbatches or over devices, the parts add up to the whole: nothing
about the cutting can change a gradient.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def token_weights(mask_BC: Array, *, aggregation: str, constant: int) -> Array:
    """weight_BC for the tokens of a whole batch; `constant` is the longest completion allowed."""
    mask_BC = (mask_BC != 0).astype(jnp.float32)
    return mask_BC / jnp.maximum(AGGREGATIONS[aggregation](mask_BC, constant), 1.0)


def _rows(mask_BC: Array) -> Array:
    """How many rows have a token."""
    return jnp.sum(jnp.any(mask_BC != 0, axis=1))


AGGREGATIONS = {  # what a token's loss is divided by
    "token": lambda mask_BC, _: jnp.sum(mask_BC),
    "sequence": lambda mask_BC, _: _rows(mask_BC) * jnp.sum(mask_BC, axis=1, keepdims=True),
    "constant": lambda mask_BC, constant: _rows(mask_BC) * jnp.float32(constant),
    "sum": lambda mask_BC, _: _rows(mask_BC),
}
