"""The matrix products of a program, counted before any compiler has seen it.

    FLOP = Σ over products: 2 · numbers of the result · numbers that each of them sums over

A scan's products count as often as it runs, of a conditional the branch with most. How often a loop
with a condition runs is not in the program: the caller says it. What is computed again on the way
back is there as often as it is computed.
"""

import math
from collections.abc import Iterator
from typing import Any


def product_flops(traced: Any, trips: int = 1) -> int:
    """FLOP of a traced program on all devices together; `trips` of loops with a condition."""
    return flops_of(traced.jaxpr.jaxpr, trips)


def flops_of(jaxpr: Any, trips: int) -> int:
    """FLOP of a jaxpr."""
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [flops_of(below, trips) for below in jaxprs_of(equation)]
        if name == "dot_general":
            total += of_product(equation)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "while":
            total += trips * sum(inner)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total


def of_product(equation: Any) -> int:
    """FLOP of one product."""
    left, _ = (x.aval.shape for x in equation.invars)
    (contracted, _), _ = equation.params["dimension_numbers"]
    (result,) = (x.aval.shape for x in equation.outvars)
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def jaxprs_of(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "jaxpr"):
                one = one.jaxpr
            if hasattr(one, "eqns"):
                yield one
