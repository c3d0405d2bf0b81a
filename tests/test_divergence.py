"""The divergence of student and teacher: literals, a float64 oracle, and the walk beside both."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from grpo.algorithms.divergence import divergence, token_divergence
from models.gemma import logits_by
from models.sharding import make_mesh
from tests.helpers import TINY

BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
B, C, V, D = 3, 7, 96, 48
WALKS = {
    "one block": {"at_once": 0, "tile": 96},
    "tiles": {"at_once": 0, "tile": 32},
    "a tile that overlaps": {"at_once": 0, "tile": 40},
    "blocks": {"at_once": 0, "tile": 40, "block": 4},
}


def oracle(beta, z, teacher_z):
    """D_β and its gradient for z, in float64, by the definition."""

    def softmax(z):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def value(z):
        p, t = softmax(np.asarray(z, float)), softmax(np.asarray(teacher_z, float))
        if beta == 0:
            return (t * np.log(t / p)).sum(axis=-1)
        if beta == 1:
            return (p * np.log(p / t)).sum(axis=-1)
        m = (1 - beta) * p + beta * t
        return beta * (t * np.log(t / m)).sum(axis=-1) + (1 - beta) * (p * np.log(p / m)).sum(-1)

    return value(z)


def test_by_hand():
    """p = (1/2, 1/2), t = (3/4, 1/4)."""
    z, teacher_z = jnp.zeros(2), jnp.log(jnp.array([3.0, 1.0]))
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(divergence(0.0, z, teacher_z)) == pytest.approx(forward, rel=1e-5)
    assert float(divergence(1.0, z, teacher_z)) == pytest.approx(reverse, rel=1e-5)
    m = (0.625, 0.375)  # between the two
    half = 0.5 * (0.75 * math.log(0.75 / m[0]) + 0.25 * math.log(0.25 / m[1]))
    half += 0.5 * (0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1]))
    assert float(divergence(0.5, z, teacher_z)) == pytest.approx(half, rel=1e-5)
    m = (0.9 * 0.5 + 0.1 * 0.75, 0.9 * 0.5 + 0.1 * 0.25)  # beta: the teacher's share
    tenth = 0.1 * (0.75 * math.log(0.75 / m[0]) + 0.25 * math.log(0.25 / m[1]))
    tenth += 0.9 * (0.5 * math.log(0.5 / m[0]) + 0.5 * math.log(0.5 / m[1]))
    assert float(divergence(0.1, z, teacher_z)) == pytest.approx(tenth, rel=1e-5)


def numeric(function, x, step=1e-6):
    """Central differences, in float64."""
    grad, x = np.zeros(x.shape), np.asarray(x, float)
    for place in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        grad[place] = (function(ahead) - function(behind)) / (2 * step)
    return grad


@pytest.mark.parametrize("beta", BETAS)
def test_against_float64(beta):
    random = np.random.RandomState(0)
    z, teacher_z = random.standard_normal((2, 4, 9)) * 3
    weight = random.standard_normal(4)
    found, grad = jax.value_and_grad(
        lambda z: jnp.sum(jnp.float32(weight) * divergence(beta, z, jnp.float32(teacher_z)))
    )(jnp.float32(z))

    def wanted(z):
        return (weight * oracle(beta, z, teacher_z)).sum()

    assert float(found) == pytest.approx(wanted(z), rel=1e-5)
    np.testing.assert_allclose(grad, numeric(wanted, z), atol=1e-5)
    assert np.all(oracle(beta, z, teacher_z) > 0)
    assert float(jnp.max(jnp.abs(divergence(beta, jnp.float32(z), jnp.float32(z))))) <= 1e-6


def inputs():
    random = np.random.RandomState(0)

    def normal(*shape):
        return jnp.float32(random.standard_normal(shape))

    tables = normal(V, D) * 0.2, normal(V, 32) * 0.2  # a teacher of another width
    return tables, normal(B, C, D), normal(B, C, 32), normal(B, C)


def loss(config, ways, beta, temperature, mask_BC, c_BC, teacher, teacher_BCD, table, hidden_BCD):
    """A loss that uses every token differently."""
    unembed = functools.partial(logits_by, config)
    d_BC = token_divergence(
        unembed, unembed, (table, teacher), hidden_BCD, teacher_BCD, mask_BC,
        beta=beta, temperature=temperature, **ways,
    )  # fmt: skip
    c_BC = c_BC if mask_BC is None else c_BC * mask_BC
    return jnp.sum(c_BC * jnp.tanh(d_BC)), d_BC


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("beta", BETAS)
def test_the_walk_is_the_plain_one(way, beta):
    """Values and both gradients, with Gemma 2's soft-cap and a temperature."""
    (table, teacher), hidden, teacher_BCD, c_BC = inputs()
    mask_BC = jnp.array(np.random.RandomState(2).randint(2, size=(B, C)))
    mask = mask_BC if way == "blocks" else None
    fixed = TINY["gemma2"], beta, 1.7, mask, c_BC, teacher, teacher_BCD

    def of(ways):
        some = functools.partial(loss, fixed[0], ways, *fixed[1:])
        return jax.value_and_grad(some, argnums=(0, 1), has_aux=True)(table, hidden)

    ((_, d_BC), grads), ((_, plain_BC), plain) = of(WALKS[way]), of({})
    kept = 1 if mask is None else mask_BC
    np.testing.assert_allclose(d_BC * kept, plain_BC * kept, atol=2e-6)
    for grad, other in zip(grads, plain, strict=True):
        np.testing.assert_allclose(grad, other, atol=5e-6)
        assert float(jnp.max(jnp.abs(other))) > 1e-3


def test_no_token_that_does_not_count_is_looked_at():
    """NaN in the states of these: neither values nor gradients notice."""
    (table, teacher), hidden, teacher_BCD, c_BC = inputs()
    mask_BC = jnp.array(np.random.RandomState(2).randint(2, size=(B, C)))
    bad = jnp.where(mask_BC[..., None] > 0, hidden, jnp.nan)
    way = {"at_once": 0, "block": 64}
    fixed = TINY["gemma3"], way, 0.5, 1.0, mask_BC, c_BC, teacher, teacher_BCD
    of = jax.value_and_grad(functools.partial(loss, *fixed), argnums=1, has_aux=True)
    (value, _), grad = of(table, hidden)
    assert np.isfinite(value) and not np.any(np.asarray(grad)[np.asarray(mask_BC) == 0])
    way["block"] = 1
    (value_of_bad, d_BC), _ = of(table, bad)
    assert float(value_of_bad) == pytest.approx(float(value), rel=1e-5)
    assert np.isfinite(d_BC).all()


def test_nothing_of_the_size_of_all_logits():
    """No array of a compiled gradient has a row of the vocabulary for every token."""
    config, random = TINY["gemma3"], np.random.RandomState(0)
    table, hidden = jnp.float32(random.standard_normal((4096, D))), jnp.ones((4, 64, D))
    unembed = functools.partial(logits_by, config)

    def total(hidden):
        return jnp.sum(token_divergence(
            unembed, unembed, (table, table * 0.5), hidden, hidden, jnp.ones((4, 64)),
            beta=0.5, temperature=1.0, at_once=0, tile=128, block=32,
        ))  # fmt: skip

    text = jax.jit(jax.grad(total)).lower(hidden).as_text()
    sizes = [math.prod(map(int, shape.split("x")[:-1])) for shape in
             re.findall(r"tensor<((?:\d+x)+\w+)>", text)]  # fmt: skip
    assert max(sizes) <= 4096 * D < 256 * 4096


def test_on_a_mesh_each_device_walks_its_own_shards():
    """Table rows over tp, tokens over fsdp: the same values, and no table is gathered."""
    mesh = make_mesh(2, 2)
    (table, teacher), hidden, teacher_BCD, c_BC = inputs()
    rows = [jnp.concatenate([x, x[:1]]) for x in (hidden, teacher_BCD, c_BC)]
    ways = {"at_once": 0, "tile": 16, "row_parts": 2, "table_parts": 2}

    def of(ways, where):
        tables = [jax.device_put(x, where(P("tp"))) for x in (table, teacher)]
        hidden, teacher_BCD, c_BC = (jax.device_put(x, where(P("fsdp"))) for x in rows)
        some = functools.partial(loss, TINY["gemma3"], ways, 0.5, 1.0, None)
        step = jax.jit(jax.value_and_grad(some, argnums=(3, 4), has_aux=True))
        given = c_BC, tables[1], teacher_BCD, tables[0], hidden
        return step(*given), str(step.lower(*given).compile().as_text())

    found, text = of(ways, functools.partial(NamedSharding, mesh))
    wanted, _ = of({}, lambda _: jax.devices()[0])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6)
    gathered = re.findall(r"\w+\[([\d,]+)\]\S* all-gather", text)
    assert not [shape for shape in gathered if shape.startswith((f"{V},", f"{V // 2},"))]
