"""Weights that correct for a sampler whose probabilities are not quite the trainer's.

    w = π_old(tokens) / π_sampler(tokens)       per token, or of the whole sequence
    cap        min(w, cap)                          bounded, a little biased: Yao et al. 2025, "Your
                                                    Efficient RL Framework Secretly Brings You
                                                    Off-Policy RL Training"
    mask       w where 1/cap <= w <= cap, else 0    such tokens teach nothing

Both policies are the same weights, computed twice: by the decoder with its cache and by the
training graph. The gap is rounding (bfloat16), or stale weights. Weights carry no gradient; the
metrics are of w itself, before the cap.
"""

from typing import Any

import jax
import jax.numpy as jnp

from grpo.algorithms.masked import inside, masked_sum

Array = jax.Array
LEVELS = ("token", "sequence")


def importance(gap_BC: Array, mask_BC: Array, *, level: str | None, limit: float) -> Array:
    """w_BC from gap = old_logprob - sample_logprob; a sequence's stands at each of its tokens."""
    gap_BC = inside(gap_BC, mask_BC)
    if level == "sequence":
        total_B1 = jnp.sum(gap_BC, axis=1, keepdims=True)
        gap_BC = jnp.broadcast_to(total_B1, gap_BC.shape)
    return jax.lax.stop_gradient(jnp.exp(jnp.clip(gap_BC, -limit, limit)))


CORRECTIONS = {
    "cap": lambda w_BC, cap: jnp.minimum(w_BC, cap),
    "mask": lambda w_BC, cap: jnp.where((w_BC <= cap) & (w_BC * cap >= 1), w_BC, 0.0),
}


def metrics(w_BC: Array, share_BC: Array, cap: Any) -> dict[str, Array]:
    """Sums over the tokens of the batch; `effective_share` makes one number of the first two."""
    outside_BC = ((w_BC > cap) | (w_BC * cap < 1)).astype(jnp.float32)
    return {
        "correction/weight": masked_sum(w_BC, share_BC),
        "correction/weight_square": masked_sum(jnp.square(w_BC), share_BC),
        "correction/outside": masked_sum(outside_BC, share_BC),
    }


def effective_share(mean: float, mean_square: float) -> float:
    """(Σ w)² / (n Σ w²): what share of the samples, all of one weight, would do as well."""
    return mean**2 / max(mean_square, 1e-30)
