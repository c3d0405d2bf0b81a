"""The rows of rollouts.jsonl: one for every completion that was sampled for training.

The stage hands them to its loop (StageLoop.keep_groups), which appends them to the file and cuts
them back where a run resumes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo.data.examples import Example
from grpo.data.templates import Template, prompt_text
from grpo.rewards.scores import Scores
from grpo.rollout.generate import finish_reasons
from grpo.rollout.sampler import Rollout


def rollout_rows(
    where: dict[str, Any],
    examples: Sequence[Example],
    texts: Sequence[str],
    rollout: Rollout,
    scores: Scores,
    advantage_PG: np.ndarray,
    template: Template,
) -> list[dict[str, Any]]:
    """A row of rollouts.jsonl for every completion."""
    group, reasons = advantage_PG.shape[1], finish_reasons(rollout.truncated_B)
    advantage_B, length_B = advantage_PG.reshape(-1), np.asarray(rollout.length_B)
    return [
        {
            **where,
            "id": example["id"],
            "group": row // group,
            "prompt": prompt_text(example, template),
            "gold": example["answer"],
            "completion": texts[row],
            "reward": {name: float(reward_B[row]) for name, reward_B in scores.rewards.items()},
            "total": float(scores.total[row]),
            "advantage": float(advantage_B[row]),
            "tokens": int(length_B[row]),
            "finish": reasons[row],
        }
        for row, example in enumerate(examples)
    ]
