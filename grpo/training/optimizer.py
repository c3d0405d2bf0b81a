"""AdamW (arXiv:1711.05101) behind a global-norm clip, with warm-up and a schedule.

    g <- g · min(1, clip_norm / ‖g‖)
    learning rate: linear from peak / warm-up to peak, then constant, or a cosine towards
    final · peak, which update number `total_updates` would have

`total_updates` is how many updates the run will really make, so that a schedule always ends. The
optimizer's own count does not advance on a skipped update (train_step.py).
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from models.sharding import path_name

SCHEDULES = ("constant", "cosine")


def learning_rate(
    *, peak: float, schedule: str, warmup: float, final: float | None, total_updates: int
) -> optax.Schedule:
    """The learning rate of update n = 0, 1, ...; `warmup` and `final` are shares."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if (final is None) != (schedule == "constant"):
        raise ValueError(f"final={final}: a cosine ends there, a constant schedule needs None")
    steps = round(warmup * total_updates)
    rest = max(total_updates - steps, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=final or 0.0),
    }[schedule]
    # Update 0 already moves: the ramp's first value is peak / steps, not 0.
    ramp = optax.linear_schedule(peak / max(steps, 1), peak, max(steps - 1, 1))
    return optax.join_schedules([ramp, after], [steps]) if steps else after


def make_optimizer(
    *,
    learning_rate: optax.Schedule,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decayed: str,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    """The optimizer; `decayed` is a regex over parameter paths such as '.*/(w|table)'."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: bool(re.fullmatch(decayed, path_name(path))), params
        )

    adamw = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, adamw)


def rate_of(config: Mapping[str, Any], total_updates: int) -> optax.Schedule:
    """The learning rate that a stage's config describes, for a stage of so many updates."""
    return learning_rate(
        peak=config["learning_rate"],
        schedule=config["schedule"],
        warmup=config["warmup"],
        final=config["final"],
        total_updates=config["schedule_updates"] or total_updates,
    )


def optimizer_of(config: Mapping[str, Any], total_updates: int) -> optax.GradientTransformation:
    """The optimizer that a stage's config describes, for a stage of so many updates."""
    return _optimizer_of(total_updates, **config)


@functools.lru_cache(maxsize=16)  # stages that are alike share a compiled update (train_step.py)
def _optimizer_of(total_updates: int, **config: Any) -> optax.GradientTransformation:
    names = ("b1", "b2", "eps", "weight_decay", "decayed", "clip_norm")
    rest = {name: config[name] for name in names}
    return make_optimizer(learning_rate=rate_of(config, total_updates), **rest)
