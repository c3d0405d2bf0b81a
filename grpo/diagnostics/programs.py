"""What a run is told of an update beside its metrics: its forecast, its gradient by reward.

Both are asked of the first update of an iteration, every so many iterations, and said after it from
a copy of what it began with, by programs of their own: the update is, bit by bit, that of a run
which asks for neither. The formulas stand in forecast.py and by_reward.py.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups
from grpo.diagnostics.by_reward import is_linear, taken_apart
from grpo.diagnostics.forecast import fit, for_rows, predict, scores
from grpo.diagnostics.gradients import gradient_of
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from grpo.training.program import Program
from grpo.training.train_step import Loss
from models.policy import Policy, variables_of

Tree = Any
FORECAST, SCORES, GRADIENT = "forecast", "forecast, log-probs", "gradient by reward"


class Made(NamedTuple):
    """An update as it was made."""

    before: Tree  # what is trained
    after: Tree
    frozen: Tree
    batch: Groups


def is_due(every: int, iteration: int) -> bool:
    """Whether something is asked of an iteration; 0: of none."""
    return every > 0 and iteration % every == 0


def diagnostic_programs(
    stage: Mapping[str, Any],
    policy: Policy,
    logprobs: Logprobs,
    loss: Loss,
    batches: Sequence[Groups],
    terms: int,
) -> dict[str, Program]:
    """The programs by name, for updates of such batches whose reward has so many terms."""
    found: dict[str, Program] = {}
    rows = [(batch.ids_BT, batch.mask_BT) for batch in batches]
    B, C = batches[0].completion_mask_BC.shape
    logprobs = dataclasses.replace(logprobs, with_entropy=False)
    if stage["forecast_every"]:
        trained = policy.trainable, policy.trainable, policy.frozen
        # Copied: what an update begins with, its step, and in float32 what is not.
        short = [x for x in jax.tree.leaves(trained[1:]) if x.dtype != jnp.float32]
        how = for_rows(logprobs, B, C, policy.config.vocab_size, stage["microbatches"])
        differentiated = functools.partial(scores, logprobs=how["logprobs"], completion=C)
        found[FORECAST] = Program(
            predict,
            tuple((*trained, *each) for each in rows),
            how,
            facts={"copies": (policy.trainable, policy.trainable, short), "of": differentiated},
        )
        found[SCORES] = Program(
            logprobs_of_rows,
            tuple((policy.variables, *each) for each in rows),
            {"logprobs": logprobs, "completion": C, "parts": stage["microbatches"]},
        )
    if stage["by_reward_every"]:
        found[GRADIENT] = Program(
            gradient_of,
            tuple((policy.trainable, policy.frozen, batch) for batch in batches),
            {"loss": loss, "microbatches": stage["microbatches"], "group": logprobs.group},
            # The whole one, that of no reward, their sum, what is left over; and a copy before it.
            facts={"gradients": terms + 5},
        )
    return found


def diagnostic_calls(stage: Mapping[str, Any], terms: int) -> dict[str, int]:
    """How often each of them runs in a stage."""

    def times(field: str) -> int:
        return -(-stage["iterations"] // stage[field]) if stage[field] else 0

    forecasts, gradients = times("forecast_every"), times("by_reward_every")
    return {FORECAST: forecasts, SCORES: 2 * forecasts, GRADIENT: (terms + 2) * gradients}


def forecast(
    programs: Mapping[str, Program], made: Made
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """How well an update was predicted; and of each token of its batch both changes, as [B, C]."""
    rows = made.batch.ids_BT, made.batch.mask_BT
    predicted_BC = np.asarray(programs[FORECAST](made.before, made.after, made.frozen, *rows))
    before_BC, after_BC = (
        np.asarray(programs[SCORES](variables_of(trainable, made.frozen), *rows))
        for trainable in (made.before, made.after)
    )
    realised_BC, mask_BC = after_BC - before_BC, np.asarray(made.batch.completion_mask_BC, bool)
    found = fit(predicted_BC[mask_BC], realised_BC[mask_BC])
    metrics = {f"forecast/{name}": value for name, value in found._asdict().items()}
    return metrics, {"predicted_change": predicted_BC, "realised_change": realised_BC}


def by_reward(
    programs: Mapping[str, Program], made: Made, apart: Mapping[str, np.ndarray], dtype: Any
) -> dict[str, float]:
    """The gradient by the terms of its advantages; NaN where it is not made of these.

    `dtype` is what the policy computes in.
    """

    def gradient_with(advantage_B: Any) -> Tree:
        batch = made.batch._replace(advantage_B=advantage_B)
        return programs[GRADIENT](made.before, made.frozen, batch)

    parts = taken_apart(gradient_with, made.batch.advantage_B, apart)
    said = {"gradient/conflict": parts.conflict}
    for name, norm in parts.norms.items():
        said[f"gradient/{name}/norm"] = norm
        said[f"gradient/{name}/cosine"] = parts.to_whole[name]
    if not is_linear(parts, dtype):
        said = dict.fromkeys(said, math.nan)
    return {"gradient/residual": parts.residual, **said}
