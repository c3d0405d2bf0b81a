"""Log-probabilities by tiles of the vocabulary beside the plain ones: values, gradients, memory."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from grpo.algorithms.logprobs import token_logprobs
from models.gemma import logits_by
from models.sharding import make_mesh, shardings
from tests.helpers import TINY

B, C, D = 3, 7, 48
GATHERED = re.compile(r"\w+\[([\d,]+)\]\S* all-gather")


def plain(config, table_VD, hidden_BCD, target_BC, temperature):
    """All logits at once."""
    logprob_BCV = jax.nn.log_softmax(logits_by(config, table_VD, hidden_BCD) / temperature)
    logprob_BC = jnp.take_along_axis(logprob_BCV, target_BC[..., None], axis=-1)[..., 0]
    return logprob_BC, -jnp.sum(jnp.exp(logprob_BCV) * logprob_BCV, axis=-1)


def inputs(dtype="float32"):
    random = np.random.RandomState(0)
    return (
        jnp.asarray(random.standard_normal((96, D)) * 0.2, dtype),
        jnp.asarray(random.standard_normal((B, C, D)), dtype),
        jnp.asarray(random.randint(0, 96, (B, C))),
    )


def both(family, ways, temperature, with_entropy, dtype="float32", mask_BC=None, **more):
    """(value, gradients) by tiles and plainly, of a loss that uses every number differently."""
    config = TINY[family]
    table, hidden, target = inputs(dtype)
    c_BC = jnp.asarray(np.random.RandomState(1).standard_normal((2, B, C)), jnp.float32)
    c_BC = c_BC if mask_BC is None else c_BC * mask_BC[None]

    def by_tile(table, hidden):
        values = token_logprobs(
            functools.partial(logits_by, config), table, hidden, target, mask_BC,
            temperature=temperature, with_entropy=with_entropy, **ways, **more,
        )  # fmt: skip
        return mix(*values)

    def mix(logprob_BC, entropy_BC):
        total = jnp.sum(c_BC[0] * jnp.tanh(logprob_BC / 4))
        if with_entropy:
            total = total + jnp.sum(c_BC[1] * entropy_BC**2)
        return total, (logprob_BC, entropy_BC if with_entropy else None)

    def at_once(table, hidden):
        logprob_BC, entropy_BC = plain(config, table, hidden, target, temperature)
        if not more.get("entropy_learns", True):
            entropy_BC = jax.lax.stop_gradient(entropy_BC)
        if mask_BC is not None:
            logprob_BC, entropy_BC = logprob_BC * mask_BC, entropy_BC * mask_BC
        return mix(logprob_BC, entropy_BC)

    return [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(table, hidden)
        for f in (by_tile, at_once)
    ]


WALKS = {
    "at once": {},
    "one tile": {"at_once": 0, "tile": 96},
    "tiles that divide": {"at_once": 0, "tile": 32},
    "tiles that overlap": {"at_once": 0, "tile": 36},
    "a row at a time": {"at_once": 0, "tile": 1},
    "two shards": {"at_once": 0, "tile": 20, "table_parts": 2},
}


def assert_alike(ours, theirs):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-5)
        assert np.abs(y).max() > 1e-2


@pytest.mark.parametrize("with_entropy", [False, True], ids=["", "entropy"])
@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize("ways", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("family", TINY)
def test_equal_in_value_and_gradient(family, ways, temperature, with_entropy):
    assert_alike(*both(family, ways, temperature, with_entropy))


@pytest.mark.parametrize("block", [1, 4, 21, 64])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_only_tokens_that_count_go_through(block, share):
    mask_BC = jnp.asarray(np.random.RandomState(2).random_sample((B, C)) < share)
    ours, theirs = both(
        "gemma2", {"at_once": 0, "tile": 40, "block": block}, 0.7, True, mask_BC=mask_BC
    )
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-5)
    for grad in ours[1]:
        assert (np.abs(grad).max() > 1e-2) == (share > 0)


def test_blocks_without_tokens_are_not_computed():
    """What they would give is NaN."""
    table, hidden, target = inputs()
    mask_BC = jnp.arange(C)[None] < jnp.array([[2], [3], [1]])
    hidden = jnp.where(mask_BC[..., None], hidden, jnp.nan)

    def total(hidden):
        logprob_BC, _ = token_logprobs(
            functools.partial(logits_by, TINY["gemma3"]), table, hidden, target, mask_BC,
            temperature=1.0, with_entropy=False, at_once=0, tile=32, block=6,
        )  # fmt: skip
        return jnp.sum(logprob_BC)

    value, grad_BCD = jax.jit(jax.value_and_grad(total))(hidden)
    assert np.isfinite(value) and np.isfinite(grad_BCD).all()


def test_an_entropy_that_is_only_measured_has_no_gradient():
    ways = WALKS["tiles that overlap"]
    assert_alike(*both("gemma3", ways, 0.9, True, entropy_learns=False))


@pytest.mark.parametrize("ways", [WALKS["at once"], WALKS["tiles that overlap"]])
def test_bfloat16_scores_are_float32(ways):
    (_, (logprob_BC, _)), _ = both("gemma3", ways, 1.0, False, "bfloat16")[0]
    table, hidden, target = inputs("bfloat16")
    exact, _ = plain(TINY["gemma3"], jnp.float32(table), jnp.float32(hidden), target, 1)
    assert logprob_BC.dtype == jnp.float32
    np.testing.assert_allclose(logprob_BC, exact, atol=1e-5)


@pytest.mark.parametrize("ways", [WALKS["at once"], WALKS["tiles that overlap"]])
def test_bfloat16_gradients_are_near(ways):
    ours, _ = both("gemma3", ways, 1.0, False, "bfloat16")
    _, exact = both("gemma3", ways, 1.0, False)
    for x, y in zip(ours[1], exact[1], strict=True):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(jnp.float32(x), y, atol=0.02 * np.abs(y).max())


def test_temperature_zero_is_scored_at_one():
    table, hidden, target = inputs()
    got, _ = token_logprobs(
        functools.partial(logits_by, TINY["gemma3"]), table, hidden, target,
        temperature=0.0, at_once=0, tile=32, with_entropy=False,
    )  # fmt: skip
    np.testing.assert_allclose(got, plain(TINY["gemma3"], table, hidden, target, 1)[0], atol=1e-5)


def temporary(tiled: bool, positions: int, vocab: int, wrt: tuple[int, ...]) -> int:
    """Bytes of XLA's temporaries for value and gradient at four rows, width 64."""
    rows, width = 4, 64
    shapes = (
        jax.ShapeDtypeStruct((vocab, width), jnp.float32),
        jax.ShapeDtypeStruct((rows, positions, width), jnp.float32),
        jax.ShapeDtypeStruct((rows, positions), jnp.int32),
    )
    config = TINY["gemma3"]

    def loss(table, hidden, target):
        if not tiled:
            return jnp.sum(plain(config, table, hidden, target, 0.9)[0])
        logprob, _ = token_logprobs(
            functools.partial(logits_by, config), table, hidden, target, jnp.ones_like(target),
            temperature=0.9, with_entropy=False,
        )  # fmt: skip
        return jnp.sum(logprob)

    compiled = jax.jit(jax.value_and_grad(loss, wrt)).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    assert memory
    return memory.temp_size_in_bytes


@pytest.mark.parametrize("wrt", [(1,), (0, 1)], ids=["hidden", "hidden and table"])
def test_memory_is_an_eighth_and_flat(wrt):
    """B = 4, C = 512, V = 262144; a table's gradient is itself V rows, which are no temporary."""
    ours, theirs = (temporary(tiled, 512, 262_144, wrt) for tiled in (True, False))
    assert ours <= theirs / 8
    assert temporary(True, 512, 524_288, wrt) <= 1.1 * ours + 2**20
    assert temporary(True, 1024, 262_144, wrt) <= 1.1 * ours + 2**20


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (4, 1)])
def test_on_a_mesh_every_device_walks_its_own_rows_and_shard(shape):
    """Equal to one device; and no device sees more of the table or of the tokens at a time."""
    mesh = make_mesh(*shape)
    random = np.random.RandomState(0)
    table = jnp.asarray(random.standard_normal((64, D)) * 0.2, jnp.float32)
    hidden = jnp.asarray(random.standard_normal((4, C, D)), jnp.float32)
    target = jnp.asarray(random.randint(0, 64, (4, C)))
    rows, parts = NamedSharding(mesh, P("fsdp")), {"row_parts": shape[0], "table_parts": shape[1]}

    def loss(table, hidden, target, **parts):
        logprob_BC, entropy_BC = token_logprobs(
            functools.partial(logits_by, TINY["gemma3"]), table, hidden, target,
            temperature=0.8, with_entropy=True, at_once=0, tile=4, **parts,
        )  # fmt: skip
        assert entropy_BC is not None
        return jnp.sum(jnp.tanh(logprob_BC)) + jnp.sum(entropy_BC**2)

    where = (shardings({"embedder": {"table": table}}, mesh)["embedder"]["table"], rows, rows)
    one = jax.jit(jax.value_and_grad(loss, (0, 1)))(table, hidden, target)
    step = jax.jit(jax.value_and_grad(functools.partial(loss, **parts), (0, 1)), in_shardings=where)
    compiled = step.lower(table, hidden, target).compile()
    assert_alike(compiled(*jax.device_put((table, hidden, target), where)), one)
    gathered = GATHERED.findall(str(compiled.as_text()))
    largest = max([math.prod(map(int, dims.split(","))) for dims in gathered], default=0)
    assert largest <= max(4 * D * shape[1], 4 * C * D // shape[0])
