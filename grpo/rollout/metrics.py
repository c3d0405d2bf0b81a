"""The metrics of an iteration's completions."""

from collections.abc import Sequence

import numpy as np

from grpo.algorithms.advantages import advantage_metrics, group_metrics
from grpo.data.examples import Example
from grpo.rewards.correct import CORRECT
from grpo.rewards.scores import Scores, metrics
from grpo.rollout.sampler import Rollout


def rollout_metrics(
    examples: Sequence[Example],
    texts: Sequence[str],
    rollout: Rollout,
    scores: Scores,
    advantage_PG: np.ndarray,
) -> dict[str, float]:
    """The metrics of P·G completions; `examples` has one for each."""
    shape = advantage_PG.shape
    pairs = zip(examples, texts, strict=True)
    correct_B = np.array([CORRECT["strict"](*pair) for pair in pairs])
    length_B = np.asarray(rollout.length_B)
    of_groups = group_metrics(scores.total.reshape(shape), correct_B.reshape(shape))
    of_groups |= advantage_metrics(advantage_PG)
    valid_B = scores.total[np.isfinite(scores.total)]
    return {
        "reward/mean": float(valid_B.mean()) if valid_B.size else float("nan"),
        "reward/std": float(valid_B.std()) if valid_B.size else float("nan"),
        **metrics(scores),
        **{name: float(value) for name, value in of_groups.items()},
        "right": float(correct_B.mean()),
        "length/mean": float(length_B.mean()),
        "length/max": float(length_B.max()),
        "truncated": float(np.asarray(rollout.truncated_B).mean()),
    }


def mean_of(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric over the rounds of an iteration: maxima are the largest, others the mean.

    A judge's may be of some rounds only.
    """

    def over(name: str) -> float:
        values = [report[name] for report in reports if name in report]
        known = [value for value in values if not np.isnan(value)]
        if not known:
            return float("nan")
        return max(known) if name.endswith(("/max", "/max_abs")) else float(np.mean(known))

    return {name: over(name) for report in reports for name in report}
