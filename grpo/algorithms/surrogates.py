"""What a token contributes to the objective, given its ratio ρ = π/π_old and its advantage A.

    clip       min(ρ A, clip(ρ, 1 - low, 1 + high) A)                   PPO, arXiv:1707.06347
               and, with dual_clip = c, at least c A where A < 0        arXiv:1912.09729
    cispo      sg(clip(ρ, 1 - low, 1 + high)) A log π                   MiniMax-M1, arXiv:2506.13585
    sapo       (4/τ) σ(τ (ρ - 1)) A, τ by the sign of A                 arXiv:2511.20347
    reinforce  A log π                                                  Williams 1992

At ρ = 1 all of them have the gradient A ∇ log π. (sg: no gradient goes through.)
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def clip(ratio_BC: Array, advantage_B1: Array, logprob_BC: Array, options) -> Array:
    """Pays for no step of the ratio beyond the clip range."""
    clipped_BC = jnp.clip(ratio_BC, 1 - options.clip_low, 1 + options.clip_high)
    objective_BC = jnp.minimum(ratio_BC * advantage_B1, clipped_BC * advantage_B1)
    if options.dual_clip is not None:
        bounded_BC = jnp.maximum(objective_BC, options.dual_clip * advantage_B1)
        objective_BC = jnp.where(advantage_B1 < 0, bounded_BC, objective_BC)
    return objective_BC


def cispo(ratio_BC: Array, advantage_B1: Array, logprob_BC: Array, options) -> Array:
    """Every token keeps its gradient; only its weight is clipped."""
    weight_BC = jnp.clip(ratio_BC, 1 - options.clip_low, 1 + options.clip_high)
    return jax.lax.stop_gradient(weight_BC) * advantage_B1 * logprob_BC


def sapo(ratio_BC: Array, advantage_B1: Array, logprob_BC: Array, options) -> Array:
    """A soft gate, steeper where the advantage is negative, in place of the clip."""
    tau_B1 = jnp.where(advantage_B1 > 0, options.tau_positive, options.tau_negative)
    return 4 / tau_B1 * jax.nn.sigmoid(tau_B1 * (ratio_BC - 1)) * advantage_B1


def reinforce(ratio_BC: Array, advantage_B1: Array, logprob_BC: Array, options) -> Array:
    """The plain policy gradient."""
    return advantage_B1 * logprob_BC


SURROGATES = {"clip": clip, "cispo": cispo, "sapo": sapo, "reinforce": reinforce}
