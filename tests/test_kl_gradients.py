"""What the KL estimators do as a loss: expectations by enumeration of a small vocabulary, float64.

A policy π = softmax(z) is drawn from, d = log π_ref - log π. Differentiated on fixed samples, as
every trainer does, an estimator k has the expected gradient Σ_v π(v) ∇ k(d_v):

    k1 = -d            Σ π ∇ log π = 0                     nothing holds the policy
    k2 = d²/2          Σ π (log π - log π_ref) ∇ log π     = ∇ KL(π ‖ π_ref)
    k3 = e^d - d - 1   Σ (π - π_ref) ∇ log π               = ∇ KL(π_ref ‖ π), another one

and times the ratio π/sg(π), every estimator that is unbiased as a value has the gradient ∇ KL.
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.kl import KL
from grpo.algorithms.losses import kl_penalty, policy_loss
from grpo.algorithms.presets import GRPO
from tests.helpers import weighed

V = 7


@pytest.fixture(autouse=True)
def float64():
    """Enumeration without rounding."""
    with jax.enable_x64(True):
        yield


def policies(seed: int) -> tuple[jax.Array, jax.Array]:
    """Logits of a policy, and log-probabilities of a reference."""
    random = np.random.RandomState(seed)
    z_V, ref_V = random.standard_normal((2, V))
    return jnp.asarray(z_V), jax.nn.log_softmax(jnp.asarray(ref_V))


def divergence(z_V, ref_V):
    """KL(π ‖ π_ref), exactly."""
    logprob_V = jax.nn.log_softmax(z_V)
    return jnp.sum(jnp.exp(logprob_V) * (logprob_V - ref_V))


def expectation(name: str, z_V, ref_V):
    """Σ π k: the samples are π's, and no gradient goes through the drawing."""
    p_V = jax.lax.stop_gradient(jax.nn.softmax(z_V))
    return jnp.sum(p_V * KL[name](jax.nn.log_softmax(z_V), ref_V))


def cosine(a, b) -> float:
    return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))


@pytest.mark.parametrize("seed", range(5))
def test_values(seed):
    z_V, ref_V = policies(seed)
    exact, logprob_V = divergence(z_V, ref_V), jax.nn.log_softmax(z_V)
    assert exact > 0.05
    for name in ("k1", "k3"):
        np.testing.assert_allclose(expectation(name, z_V, ref_V), exact, rtol=1e-12)
    assert abs(expectation("k2", z_V, ref_V) - exact) > 1e-3 * exact
    assert np.any(KL["k1"](logprob_V, ref_V) < 0)
    assert np.all(KL["k3"](logprob_V, ref_V) > 0)
    np.testing.assert_array_equal(KL["k3"](logprob_V, logprob_V), 0)


@pytest.mark.parametrize("seed", range(5))
def test_expected_gradients(seed):
    z_V, ref_V = policies(seed)
    exact_V = jax.grad(divergence)(z_V, ref_V)
    k1_V, k2_V, k3_V = (
        jax.grad(expectation, argnums=1)(name, z_V, ref_V) for name in ("k1", "k2", "k3")
    )
    np.testing.assert_allclose(k1_V, 0, atol=1e-14)
    np.testing.assert_allclose(k2_V, exact_V, rtol=1e-10, atol=1e-14)
    # ∇ KL(π_ref ‖ π) = π - π_ref
    np.testing.assert_allclose(k3_V, jax.nn.softmax(z_V) - jnp.exp(ref_V), atol=1e-14)
    assert jnp.linalg.norm(k3_V - exact_V) > 0.05 * jnp.linalg.norm(exact_V)
    assert cosine(k3_V, exact_V) > 0.5


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_times_the_ratio_the_gradient_is_exact(name):
    z_V, ref_V = policies(0)

    def weighted(z_V):
        logprob_V = jax.nn.log_softmax(z_V)
        frozen_V = jax.lax.stop_gradient(logprob_V)
        ratio_V = jnp.exp(logprob_V - frozen_V)
        return jnp.sum(jnp.exp(frozen_V) * ratio_V * KL[name](logprob_V, ref_V))

    np.testing.assert_allclose(
        jax.grad(weighted)(z_V), jax.grad(divergence)(z_V, ref_V), atol=1e-14
    )


def objective_of(kl: str, kl_in: str, coefficient: float):
    """GRPO with another KL, silently."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dataclasses.replace(GRPO, kl=kl, kl_in=kl_in, kl_coef=coefficient)


def descend(kl: str, kl_in: str, steps: int = 300) -> tuple[float, float]:
    """KL before and after gradient steps on the loss of every token, weighted by its probability.

    There is nothing to earn but closeness: the only reward is the penalty, if `kl_in` is reward.
    """
    z_V, ref_V = policies(1)
    objective = objective_of(kl, kl_in, 1.0)
    mask_V1 = jnp.ones((V, 1), jnp.int32)

    def loss(z_V):
        logprob_V1 = jax.nn.log_softmax(z_V)[:, None]
        frozen_V1 = jax.lax.stop_gradient(logprob_V1)
        p_V1, ref_V1 = jnp.exp(frozen_V1), ref_V[:, None]
        reward_V = jnp.zeros(V)
        if kl_in == "reward":
            reward_V = -kl_penalty(frozen_V1, ref_V1, mask_V1, objective=objective)
        groups = weighed(
            completion_mask_BC=mask_V1,
            truncated_B=np.zeros(V, bool),
            advantage_B=reward_V - jnp.sum(p_V1[:, 0] * reward_V),
            old_logprob_BC=None,
            ref_logprob_BC=ref_V1,
            sample_logprob_BC=None,
            limit=1,
            objective=objective,
        )._replace(weight_BC=p_V1, share_BC=p_V1)
        return policy_loss(logprob_V1, None, groups, objective=objective)[0]

    slope = jax.jit(jax.grad(loss))
    start = float(divergence(z_V, ref_V))
    for _ in range(steps):
        z_V = z_V - 0.2 * slope(z_V)
    return start, float(divergence(z_V, ref_V))


@pytest.mark.parametrize(("kl", "kl_in"), [("k2", "loss"), ("k3", "loss"), ("k1", "reward")])
def test_descent_returns_to_the_reference(kl, kl_in):
    start, end = descend(kl, kl_in)
    assert end < 0.01 * start


def test_k1_as_a_loss_leaves_the_policy_where_it_is():
    start, end = descend("k1", "loss")
    assert abs(end - start) < 1e-6 * start


def test_k1_as_a_loss_warns():
    with pytest.warns(UserWarning, match="restrains nothing"):
        dataclasses.replace(GRPO, kl="k1", kl_in="loss", kl_coef=0.04)


@pytest.mark.parametrize(("kl", "kl_in", "coefficient"), [
    ("k1", "reward", 0.04), ("k1", "loss", 0.0), ("k2", "loss", 0.04), ("k3", "loss", 0.04),
])  # fmt: skip
def test_nothing_else_warns(kl, kl_in, coefficient):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataclasses.replace(GRPO, kl=kl, kl_in=kl_in, kl_coef=coefficient)
