"""Products that accumulate in float32, and the products of their gradients."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.training.logprobs import Logprobs
from models.attention import contract
from models.gemma import Gemma, init_params
from models.lora import LoraConfig, init_adapter
from tests.helpers import SHALLOW

EQUATIONS = {"BI,IO->BO": ((3, 5), (5, 7)), "BKTQH,BKSH->BKTQS": ((2, 3, 4, 2, 5), (2, 3, 6, 5)),
             "...D,VD->...V": ((2, 3, 5), (7, 5))}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_values_and_gradients(equation, dtype):
    """Of numbers that bfloat16 holds: exact, and rounded once where the operands are short."""
    random = np.random.RandomState(0)
    exact = [
        jnp.asarray(random.randint(-8, 9, shape), jnp.float32) for shape in EQUATIONS[equation]
    ]
    x, y = (operand.astype(dtype) for operand in exact)
    out, pull = jax.vjp(lambda x, y: contract(equation, x, y), x, y)
    wanted, pull_exact = jax.vjp(lambda x, y: jnp.einsum(equation, x, y), *exact)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, wanted)
    grad = jnp.asarray(random.randint(-8, 9, out.shape), jnp.float32)
    for ours, theirs in zip(pull(grad), pull_exact(grad), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs.astype(dtype))


def products(jaxpr):
    """The dtypes of the operands of every matrix product in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(str(operand.aval.dtype) for operand in equation.invars)
        for value in jax.tree.leaves(equation.params, is_leaf=is_program):
            if is_program(value):
                yield from products(getattr(value, "jaxpr", value))


def is_program(value):
    return isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)


def test_training_in_bfloat16_multiplies_bfloat16_only():
    """On the way back too: a product of two dtypes is one of the wider."""
    lora = LoraConfig(rank=2, alpha=2.0)
    module = Gemma(SHALLOW, jnp.bfloat16, jnp.bfloat16, lora.scale)
    params = jax.eval_shape(lambda: init_params(SHALLOW, jax.random.key(0), jnp.bfloat16))
    adapter = jax.eval_shape(lambda: init_adapter(lora, params, jax.random.key(0)))
    logprobs = Logprobs(module=module, temperature=1.0, with_entropy=False)
    ids_BT = jax.ShapeDtypeStruct((2, 12), jnp.int32)

    def loss(adapter, params, ids_BT):
        variables = {"params": params, "lora": adapter}
        return jnp.sum(logprobs(variables, ids_BT, jnp.ones_like(ids_BT), 6)[0])

    program = jax.make_jaxpr(jax.grad(loss))(adapter, params, ids_BT)
    found = list(products(program.jaxpr))
    assert len(found) > 20 and set(found) == {("bfloat16", "bfloat16")}


@pytest.mark.parametrize(
    ("platform", "rows", "flips"), [("cpu", 7, 1), ("cpu", 3, 0), ("tpu", 7, 0)]
)
def test_a_cpu_does_not_copy_the_larger_side(platform, rows, flips):
    """What a product's left side sums over is copied there: the gradient of a tall table flips."""
    x, table = (
        jax.ShapeDtypeStruct((9, 5), jnp.float32),
        jax.ShapeDtypeStruct((rows, 5), jnp.float32),
    )

    def loss(table, x):
        return jnp.sum(contract("...D,VD->...V", x, table) ** 2)

    text = jax.jit(jax.grad(loss)).trace(table, x).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("optimization_barrier") == flips
