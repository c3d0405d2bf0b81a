"""Gradients in float64 NumPy: each operation notes how a gradient goes back through it.

    y = f(x)      y remembers x and the map  g -> (∂y/∂x)ᵀ g
    gradients     walk from the result back to what it was made of, adding up

Arrays that are not nodes are constants. Few operations, none of them fast: a reference to compare
with, which shares nothing with JAX.
"""

import numpy as np


class Node:
    """An array, and its parents, each with the map that pulls a gradient back to it."""

    __array_priority__ = 1.0  # array + node is a node

    def __init__(self, value, *parents):
        self.value = np.asarray(value, np.float64)
        self.parents = [(node, pull) for node, pull in parents if isinstance(node, Node)]

    @property
    def shape(self):
        return self.value.shape

    def __add__(self, other):
        value = self.value + value_of(other)
        return Node(value, (self, unbroadcast(self)), (other, unbroadcast(other)))

    def __mul__(self, other):
        a, b = self.value, value_of(other)
        back_a, back_b = unbroadcast(self), unbroadcast(other)
        return Node(a * b, (self, lambda g: back_a(g * b)), (other, lambda g: back_b(g * a)))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        return self * (power(other, -1.0) if isinstance(other, Node) else 1.0 / np.asarray(other))

    def __getitem__(self, index):
        def pull(g):
            whole = np.zeros(self.shape)
            np.add.at(whole, index, g)  # a row that was read twice gets two gradients
            return whole

        return Node(self.value[index], (self, pull))


def value_of(x):
    """The array of a node or of a constant."""
    return x.value if isinstance(x, Node) else np.asarray(x, np.float64)


def unbroadcast(x):
    """Sums a gradient over the axes along which x was repeated."""
    shape = np.shape(value_of(x))

    def pull(g):
        g = g.sum(axis=tuple(range(g.ndim - len(shape))))
        repeated = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] > 1)
        return g.sum(axis=repeated, keepdims=True)

    return pull


def einsum(equation, a, b):
    """Σ a b; every letter of an operand stands in the other one or in the result.

    Not through BLAS, whose threads would take longer to wake than such small sums.
    """
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    x, y = value_of(a), value_of(b)
    return Node(
        np.einsum(equation, x, y),
        (a, lambda g: np.einsum(f"{out},{right}->{left}", g, y)),
        (b, lambda g: np.einsum(f"{left},{out}->{right}", x, g)),
    )


def exp(x):
    """e^x."""
    value = np.exp(x.value)
    return Node(value, (x, lambda g: g * value))


def log(x):
    """The natural logarithm."""
    return Node(np.log(x.value), (x, lambda g: g / x.value))


def tanh(x):
    """The hyperbolic tangent."""
    value = np.tanh(x.value)
    return Node(value, (x, lambda g: g * (1 - value**2)))


def power(x, p):
    """x^p for a number p."""
    return Node(x.value**p, (x, lambda g: g * p * x.value ** (p - 1)))


def where(condition, a, b):
    """a where the constant condition holds, b elsewhere."""
    back_a, back_b = unbroadcast(a), unbroadcast(b)
    return Node(
        np.where(condition, value_of(a), value_of(b)),
        (a, lambda g: back_a(np.where(condition, g, 0.0))),
        (b, lambda g: back_b(np.where(condition, 0.0, g))),
    )


def total(x, axis=None):
    """The sum over an axis, which is kept, or over all of them."""
    value = x.value.sum() if axis is None else x.value.sum(axis=axis, keepdims=True)
    return Node(value, (x, lambda g: np.broadcast_to(g, x.shape)))


def gradients(result, leaves):
    """∂ result / ∂ leaf for each named leaf; `result` is one number."""
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent, _ in node.parents:
                visit(parent)
            order.append(node)

    visit(result)
    found = {id(result): np.ones(result.shape)}
    for node in reversed(order):
        g = found.get(id(node))
        for parent, pull in node.parents:
            found[id(parent)] = found.get(id(parent), 0.0) + pull(g)
    return {name: found.get(id(leaf), np.zeros(leaf.shape)) for name, leaf in leaves.items()}
