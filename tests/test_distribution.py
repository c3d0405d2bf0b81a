"""What is kept, what is drawn, and how it is scored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distribution import Sampling, blocks_of, draw, edge, restrict, sample, temper

OFF = Sampling(1.0, 0, 1.0, 0.0)
# Probabilities of eight tokens, two of them tied.
P = np.array([0.30, 0.05, 0.20, 0.20, 0.02, 0.10, 0.03, 0.10])
Z = jnp.log(jnp.array(P, jnp.float32))[None]
DRAWS = 40_000


def kept_by_sorting(p: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The same three cuts by sorting, in float64."""
    p = p / p.sum()
    if top_k:
        p = np.where(p >= np.sort(p)[::-1][min(top_k, len(p)) - 1], p, 0)
    p = p / p.sum()
    if top_p < 1:
        ordered = np.sort(p)[::-1]
        last = ordered[np.searchsorted(np.cumsum(ordered), top_p - 1e-7)]
        p = np.where(p >= last, p, 0)
    return (p > 0) & (p >= min(min_p, 1) * p.max())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((0, 1.0, 0.0), "11111111"),
        ((1, 1.0, 0.0), "10000000"),
        ((2, 1.0, 0.0), "10110000"),  # a tie at the edge: both stay
        ((3, 1.0, 0.0), "10110000"),
        ((99, 1.0, 0.0), "11111111"),
        ((0, 0.3, 0.0), "10000000"),
        ((0, 0.31, 0.0), "10110000"),
        ((0, 0.75, 0.0), "10110101"),
        ((0, 1e-6, 0.0), "10000000"),
        ((0, 0.0, 0.0), "10000000"),  # never nothing
        ((0, 1.0, 1.5), "10000000"),
        ((0, 1.0, 0.5), "10110000"),
        ((0, 1.0, 1.0), "10000000"),
        ((3, 0.5, 0.0), "10110000"),  # of 0.7 the first is 0.43
        ((3, 0.42, 0.0), "10000000"),
        ((3, 0.9, 0.7), "10000000"),
    ],
    ids=str,
)
def test_what_is_kept(options, kept):
    got = np.isfinite(restrict(Z, Sampling(1.0, *options)))[0]
    assert "".join(str(int(x)) for x in got) == kept
    np.testing.assert_array_equal(got, kept_by_sorting(P, *options))


@pytest.mark.parametrize(
    "options", [(5, 1.0, 0.0), (0, 0.9, 0.0), (40, 0.7, 0.1), (1000, 0.999, 0.0)]
)
def test_the_cuts_are_those_of_sorting(options):
    z_BV = jnp.asarray(np.random.RandomState(1).standard_normal((20, 501)) * 3, jnp.float32)
    kept_BV = np.isfinite(restrict(z_BV, Sampling(1.0, *options)))
    for z_V, kept_V in zip(np.asarray(z_BV, np.float64), kept_BV, strict=True):
        np.testing.assert_array_equal(kept_V, kept_by_sorting(np.exp(z_V), *options))


def test_edge_is_exact_at_any_magnitude():
    values = np.array([[-3e38, -1.0, -1e-37, 0.0, 1e-37, 5.0, 5.000001, 3e38]], np.float32)
    for k in range(1, 9):
        enough = functools.partial(lambda kept, k: jnp.sum(kept, 1, keepdims=True) >= k, k=k)
        z_BV = jnp.array(values)
        kept = z_BV >= edge(z_BV, enough)
        np.testing.assert_array_equal(kept, values >= np.sort(values[0])[-k])


def counts(keys, logits_V, sampling) -> np.ndarray:
    logits = jnp.broadcast_to(logits_V[None], (len(keys), logits_V.size))
    token, _ = jax.jit(sample)(keys, logits, sampling)
    return np.bincount(token, minlength=logits_V.size)


@pytest.mark.parametrize("size", [8, 96, 512])
@pytest.mark.parametrize(
    "sampling",
    [
        OFF,
        Sampling(0.5, 0, 1.0, 0.0),
        Sampling(1.7, 0, 1.0, 0.0),
        Sampling(1.0, 4, 1.0, 0.0),
        Sampling(1.0, 0, 0.8, 0.0),
        Sampling(1.0, 0, 1.0, 0.3),
        Sampling(1.3, 6, 0.9, 0.1),
    ],
    ids=str,
)
def test_chi_square(size, sampling):
    """Frequencies against the renormalised probabilities, at a false alarm of 1e-5."""
    logits_V = jnp.asarray(np.random.RandomState(2).standard_normal(size) * 1.5, jnp.float32)
    p_V = np.exp(np.asarray(logits_V, np.float64) / sampling.temperature)
    p_V = np.where(kept_by_sorting(p_V, *sampling[1:]), p_V, 0)
    p_V /= p_V.sum()
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(3)))(jnp.arange(DRAWS))
    seen_V = counts(keys, logits_V, sampling)
    assert seen_V[p_V == 0].sum() == 0
    likely_V = p_V * DRAWS >= 5
    seen, expected = seen_V[likely_V], p_V[likely_V] * DRAWS
    seen, expected = (
        np.append(seen, DRAWS - seen.sum()),
        np.append(expected, DRAWS - expected.sum()),
    )
    freedom = max(likely_V.sum() - (expected[-1] < 5), 1)
    chi = ((seen - expected)[expected >= 5] ** 2 / expected[expected >= 5]).sum()
    assert chi < freedom + 4.3 * (2 * freedom) ** 0.5 + 13


def test_temperature_zero_is_the_likeliest_token():
    logits = jnp.array([
        [0.0, 3.0, 2.9, 2.9, 2.9, 2.9],  # in blocks of two, the likeliest token's is the lightest
        [5.0, 1.0, 4.9, 4.9, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 2.0, 2.0],  # of equals the first
    ])  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 3)
    token_B, logprob_B = sample(keys, logits, OFF._replace(temperature=0.0))
    assert token_B.tolist() == [1, 0, 4]
    expected = jax.nn.log_softmax(logits)[jnp.arange(3), token_B]
    np.testing.assert_allclose(logprob_B, expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("cut", [(0, 1.0, 0.0), (3, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.2)])
def test_scores_are_of_the_whole_vocabulary_at_this_temperature(temperature, cut):
    """Σ over all tokens of exp(logprob) is 1; over the kept ones it is their share."""
    logits_V = np.random.RandomState(4).standard_normal(8)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(5)))(jnp.arange(500))
    rows = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32)[None], (500, 8))
    token_B, logprob_B = sample(keys, rows, Sampling(temperature, *cut))
    z_V = logits_V / temperature
    np.testing.assert_allclose(
        logprob_B, (z_V - np.log(np.exp(z_V).sum()))[np.asarray(token_B)], atol=1e-6
    )


def test_a_row_depends_on_its_own_key_and_logits_only():
    logits = jnp.asarray(np.random.RandomState(6).standard_normal((6, 96)), jnp.float32)
    keys = jax.random.split(jax.random.key(7), 6)
    order = jnp.array([3, 0, 5])
    token_B, _ = draw(keys, blocks_of(logits))
    again_B, _ = draw(keys[order], blocks_of(logits[order]))
    np.testing.assert_array_equal(token_B[order], again_B)


def test_settings_do_not_recompile():
    traced = []
    step = jax.jit(lambda *given: (traced.append(1), sample(*given))[1])
    keys = jax.random.split(jax.random.key(7), 2)
    for sampling in (OFF, Sampling(0.0, 0, 1.0, 0.0), Sampling(0.7, 5, 0.9, 0.1)):
        step(keys, jnp.zeros((2, 8)), sampling)
    assert len(traced) == 1


def test_temper_is_float32():
    z = temper(jnp.array([1.0, 2.0], jnp.bfloat16), 3.0)
    np.testing.assert_array_equal(z, np.array([1, 2], np.float32) / np.float32(3))
