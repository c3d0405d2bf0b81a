"""Metrics that add up over microbatches: sums with weights of the whole batch, and maxima."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Metrics(NamedTuple):
    """By name: `sums` of parts of the batch are added, of its `tops` the largest is taken."""

    sums: dict[str, Array]
    tops: dict[str, Array]

    def combine(self, other: "Metrics") -> "Metrics":
        """The metrics of two parts of a batch together."""
        return Metrics(
            sums=jax.tree.map(jnp.add, self.sums, other.sums),
            tops=jax.tree.map(jnp.maximum, self.tops, other.tops),
        )

    def empty(self) -> "Metrics":
        """What leaves metrics of these shapes as they are when combined with them."""
        return Metrics(
            sums=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.sums),
            tops=jax.tree.map(lambda x: jnp.full(x.shape, -jnp.inf, x.dtype), self.tops),
        )

    def flat(self) -> dict[str, Array]:
        """All of them under their names."""
        return {**self.sums, **self.tops}
