"""Chunked log-probabilities against the plain ones: values, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.logprobs import chunk_size, token_logprobs
from models.gemma import unembed
from tests.helpers import TINY

B, C, D = 3, 7, 48


def plain(config, params, hidden_BCD, target_BC, temperature):
    """All logits at once."""
    logprob_BCV = jax.nn.log_softmax(unembed(config, params, hidden_BCD) / temperature)
    logprob_BC = jnp.take_along_axis(logprob_BCV, target_BC[..., None], axis=-1)[..., 0]
    return logprob_BC, -jnp.sum(jnp.exp(logprob_BCV) * logprob_BCV, axis=-1)


def inputs(dtype="float32"):
    random = np.random.RandomState(0)
    return (
        {"embedder": {"table": jnp.asarray(random.standard_normal((96, D)) * 0.2, dtype)}},
        jnp.asarray(random.standard_normal((B, C, D)), dtype),
        jnp.asarray(random.randint(0, 96, (B, C))),
    )


def both(family, chunk, temperature, with_entropy, dtype="float32"):
    """(value, gradients) by chunks and plainly, of a loss that uses every number differently."""
    config = TINY[family]
    params, hidden, target = inputs(dtype)
    c_BC = jnp.asarray(np.random.RandomState(1).standard_normal((2, B, C)), jnp.float32)

    def by_chunk(params, hidden):
        values = token_logprobs(
            functools.partial(unembed, config), params, hidden, target,
            temperature=temperature, chunk=chunk, with_entropy=with_entropy,
        )  # fmt: skip
        return mix(*values)

    def mix(logprob_BC, entropy_BC):
        total = jnp.sum(c_BC[0] * jnp.tanh(logprob_BC / 4))
        if with_entropy:
            total = total + jnp.sum(c_BC[1] * entropy_BC**2)
        return total, logprob_BC

    def at_once(params, hidden):
        return mix(*plain(config, params, hidden, target, temperature))

    return [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, hidden)
        for f in (by_chunk, at_once)
    ]


@pytest.mark.parametrize("with_entropy", [False, True], ids=["", "entropy"])
@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("family", TINY)
def test_equal_in_value_and_gradient(family, chunk, temperature, with_entropy):
    chunked, at_once = both(family, chunk, temperature, with_entropy)
    for ours, theirs in zip(jax.tree.leaves(chunked), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
        assert np.abs(theirs).max() > 1e-2


def test_bfloat16_scores_are_float32():
    (_, logprob_BC), _ = both("gemma3", 3, 1.0, False, "bfloat16")[0]
    params, hidden, target = inputs("bfloat16")
    exact, _ = plain(
        TINY["gemma3"], jax.tree.map(jnp.float32, params), jnp.float32(hidden), target, 1
    )
    assert logprob_BC.dtype == jnp.float32
    np.testing.assert_allclose(logprob_BC, exact, atol=1e-5)


def test_temperature_zero_is_scored_at_one():
    params, hidden, target = inputs()
    got, _ = token_logprobs(
        functools.partial(unembed, TINY["gemma3"]), params, hidden, target,
        temperature=0.0, chunk=2, with_entropy=False,
    )  # fmt: skip
    np.testing.assert_allclose(got, plain(TINY["gemma3"], params, hidden, target, 1)[0], atol=1e-5)


def temporary(chunked: bool, positions: int, vocab: int, wrt: tuple[int, ...]) -> int:
    """Bytes of XLA's temporaries for value and gradient at four rows, width 64."""
    rows, width = 4, 64
    shapes = (
        {"embedder": {"table": jax.ShapeDtypeStruct((vocab, width), jnp.float32)}},
        jax.ShapeDtypeStruct((rows, positions, width), jnp.float32),
        jax.ShapeDtypeStruct((rows, positions), jnp.int32),
    )
    config = TINY["gemma3"]

    def loss(params, hidden, target):
        if not chunked:
            return jnp.sum(plain(config, params, hidden, target, 0.9)[0])
        logprob, _ = token_logprobs(
            functools.partial(unembed, config), params, hidden, target,
            temperature=0.9, chunk=chunk_size(rows, vocab), with_entropy=False,
        )  # fmt: skip
        return jnp.sum(logprob)

    compiled = jax.jit(jax.value_and_grad(loss, wrt)).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    assert memory
    return memory.temp_size_in_bytes


@pytest.mark.parametrize("wrt", [(1,), (0, 1)], ids=["hidden", "hidden and table"])
def test_memory_is_an_eighth_and_flat(wrt):
    """B = 4, C = 512, V = 262144; a table's gradient is itself V rows, so it is measured apart."""
    ours, theirs = (temporary(chunked, 512, 262_144, wrt) for chunked in (True, False))
    table = 262_144 * 64 * 4 if 0 in wrt else 0
    assert ours - table <= theirs / 8
    assert temporary(True, 512, 524_288, wrt) - 2 * table <= 1.1 * (ours - table) + 2**20
    assert temporary(True, 1024, 262_144, wrt) - table <= 1.1 * (ours - table) + 2**20
