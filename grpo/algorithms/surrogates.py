"""What a token contributes to the objective, given its ratio ρ = π/π_old and its advantage A.

    clip       min(ρ A, clip(ρ, 1 - low, 1 + high) A)                   PPO, arXiv:1707.06347
               and, with dual_clip = c, at least c A where A < 0        arXiv:1912.09729
    cispo      sg(clip(ρ, 1 - low, 1 + high)) A log π                   MiniMax-M1, arXiv:2506.13585
    sapo       (4/τ) σ(τ (ρ - 1)) A, τ by the sign of A                 arXiv:2511.20347
    dppo_tv    ρ A, or 0 where A (ρ - 1) > 0 and D > δ                  DPPO, arXiv:2602.04879
               D = |π - π_old|
    dppo_kl    the same with                                            DPPO
               D = π_old log(π_old/π) + (1 - π_old) log((1 - π_old)/(1 - π))
    reinforce  A log π                                                  Williams 1992

At ρ = 1 all of them have the gradient A ∇ log π. (sg: no gradient goes through.)

DPPO bounds the divergence of the token's probability, not its ratio: a rare token may grow many
times over, a likely one may not lose a fifth. D is that of "this token or another one" (the paper's
binary divergences, its equations 13 and 14), δ is `divergence_limit`. A token beyond it gives
nothing where its update would take it further away, and ρ A where it would bring it back.

Deviations from DPPO's paper: π_old is that of the training graph, as everywhere here; the paper
compares with the probability that the sampler reported (Objective.correction weights that gap). Its
approximation by the K likeliest tokens is not here. The authors' code holds ρ below a cap; here
only log ρ is held within ±20, see losses.py.

The keywords of a surrogate are the fields of an Objective that it reads; BEYOND has, for those
that hold tokens back, which ones.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def clip(
    ratio_BC: Array,
    advantage_BC: Array,
    logprob_BC: Array,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> Array:
    """Pays for no step of the ratio beyond the clip range."""
    clipped_BC = jnp.clip(ratio_BC, 1 - clip_low, 1 + clip_high)
    objective_BC = jnp.minimum(ratio_BC * advantage_BC, clipped_BC * advantage_BC)
    if dual_clip is not None:
        bounded_BC = jnp.maximum(objective_BC, dual_clip * advantage_BC)
        objective_BC = jnp.where(advantage_BC < 0, bounded_BC, objective_BC)
    return objective_BC


def cispo(
    ratio_BC: Array, advantage_BC: Array, logprob_BC: Array, *, clip_low: float, clip_high: float
) -> Array:
    """Every token keeps its gradient; only its weight is clipped."""
    weight_BC = jnp.clip(ratio_BC, 1 - clip_low, 1 + clip_high)
    return jax.lax.stop_gradient(weight_BC) * advantage_BC * logprob_BC


def sapo(
    ratio_BC: Array,
    advantage_BC: Array,
    logprob_BC: Array,
    *,
    tau_positive: float,
    tau_negative: float,
) -> Array:
    """A soft gate, steeper where the advantage is negative, in place of the clip."""
    tau_BC = jnp.where(advantage_BC > 0, tau_positive, tau_negative)
    return 4 / tau_BC * jax.nn.sigmoid(tau_BC * (ratio_BC - 1)) * advantage_BC


def total_variation(logprob_BC: Array, old_logprob_BC: Array) -> Array:
    """|π - π_old|."""
    return jnp.abs(jnp.exp(logprob_BC) - jnp.exp(old_logprob_BC))


def binary_kl(logprob_BC: Array, old_logprob_BC: Array) -> Array:
    """KL(π_old ‖ π) of the two outcomes "this token" and "another one"."""
    least = jnp.finfo(logprob_BC.dtype).tiny  # of 1 - π where π is 1 in floating point
    other_BC = jnp.maximum(-jnp.expm1(logprob_BC), least)
    old_other_BC = jnp.maximum(-jnp.expm1(old_logprob_BC), least)
    this_BC = jnp.exp(old_logprob_BC) * (old_logprob_BC - logprob_BC)
    return this_BC + old_other_BC * (jnp.log(old_other_BC) - jnp.log(other_BC))


def too_far(
    ratio_BC: Array,
    advantage_BC: Array,
    logprob_BC: Array,
    *,
    divergence: Callable[[Array, Array], Array],
    divergence_limit: float,
) -> Array:
    """Where a token is beyond the limit, and its update would take it further away."""
    diverged_BC = divergence(logprob_BC, logprob_BC - jnp.log(ratio_BC))
    return (diverged_BC > divergence_limit) & (advantage_BC * (ratio_BC - 1) > 0)


def dppo(ratio_BC: Array, advantage_BC: Array, logprob_BC: Array, *, is_far, divergence_limit):
    """The ratio without a clip, of the tokens that are not too far."""
    is_far_BC = is_far(ratio_BC, advantage_BC, logprob_BC, divergence_limit=divergence_limit)
    return jnp.where(is_far_BC, 0.0, ratio_BC * advantage_BC)


def reinforce(ratio_BC: Array, advantage_BC: Array, logprob_BC: Array) -> Array:
    """The plain policy gradient."""
    return advantage_BC * logprob_BC


FAR_TV = functools.partial(too_far, divergence=total_variation)
FAR_KL = functools.partial(too_far, divergence=binary_kl)
SURROGATES = {
    "clip": clip,
    "cispo": cispo,
    "sapo": sapo,
    "dppo_tv": functools.partial(dppo, is_far=FAR_TV),
    "dppo_kl": functools.partial(dppo, is_far=FAR_KL),
    "reinforce": reinforce,
}


def clipped(
    ratio_BC: Array,
    advantage_BC: Array,
    logprob_BC: Array,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> dict[str, Array]:
    """The tokens beyond the clip range, on the side where clipping acts."""
    beyond = {
        "clip/low": (ratio_BC < 1 - clip_low) & (advantage_BC < 0),
        "clip/high": (ratio_BC > 1 + clip_high) & (advantage_BC > 0),
    }
    if dual_clip is not None:
        beyond["clip/dual"] = (ratio_BC > dual_clip) & (advantage_BC < 0)
    return beyond


def clipped_weights(
    ratio_BC: Array, advantage_BC: Array, logprob_BC: Array, *, clip_low: float, clip_high: float
) -> dict[str, Array]:
    """The tokens whose weight is clipped, whatever their advantage."""
    return {"clip/low": ratio_BC < 1 - clip_low, "clip/high": ratio_BC > 1 + clip_high}


def masked(ratio_BC: Array, advantage_BC: Array, logprob_BC: Array, *, is_far, divergence_limit):
    """The tokens that are too far."""
    is_far_BC = is_far(ratio_BC, advantage_BC, logprob_BC, divergence_limit=divergence_limit)
    return {"clip/masked": is_far_BC}


BEYOND = {
    "clip": clipped,
    "cispo": clipped_weights,
    "dppo_tv": functools.partial(masked, is_far=FAR_TV),
    "dppo_kl": functools.partial(masked, is_far=FAR_KL),
}
