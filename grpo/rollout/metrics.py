"""What is told of an iteration's completions: metrics, and a row for each of them."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.advantages import advantage_metrics, group_metrics
from grpo.data.examples import Example
from grpo.data.templates import Template, prompt_text
from grpo.rewards.compose import Scores, metrics
from grpo.rewards.correct import CORRECT
from grpo.rollout.generate import Completions, finish_reasons


def rollout_metrics(
    examples: Sequence[Example],
    told: Completions,
    scores: Scores,
    advantage_PG: np.ndarray,
) -> dict[str, float]:
    """The metrics of P·G completions; `examples` has one for each."""
    shape = advantage_PG.shape
    right_B = np.array(
        [CORRECT["strict"](*pair) for pair in zip(examples, told.texts, strict=True)]
    )
    of_groups = group_metrics(
        jnp.asarray(scores.total).reshape(shape), jnp.asarray(right_B).reshape(shape)
    ) | advantage_metrics(jnp.asarray(advantage_PG))
    valid_B = scores.total[np.isfinite(scores.total)]
    return {
        "reward/mean": float(valid_B.mean()) if valid_B.size else float("nan"),
        "reward/std": float(valid_B.std()) if valid_B.size else float("nan"),
        **metrics(scores),
        **{name: float(value) for name, value in of_groups.items()},
        "right": float(right_B.mean()),
        "length/mean": float(told.length_B.mean()),
        "length/max": float(told.length_B.max()),
        "truncated": float(told.truncated_B.mean()),
    }


def mean_of(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric over the rounds of an iteration: maxima are the largest, others the mean."""

    def over(name: str) -> float:
        told = [report[name] for report in reports if not np.isnan(report[name])]
        if not told:
            return float("nan")
        return max(told) if name.endswith(("/max", "/max_abs")) else float(np.mean(told))

    return {name: over(name) for name in reports[0]}


def rollout_rows(
    where: dict[str, Any],
    examples: Sequence[Example],
    told: Completions,
    scores: Scores,
    advantage_PG: np.ndarray,
    template: Template,
) -> list[dict[str, Any]]:
    """A row of rollouts.jsonl for every completion."""
    group, reasons = advantage_PG.shape[1], finish_reasons(told.truncated_B)
    advantage_B = advantage_PG.reshape(-1)
    return [
        {
            **where,
            "id": example["id"],
            "group": row // group,
            "prompt": prompt_text(example, template),
            "gold": example["answer"],
            "completion": told.texts[row],
            "reward": {name: float(reward_B[row]) for name, reward_B in scores.rewards.items()},
            "total": float(scores.total[row]),
            "advantage": float(advantage_B[row]),
            "tokens": int(told.length_B[row]),
            "finish": reasons[row],
        }
        for row, example in enumerate(examples)
    ]
