"""The rows of rollouts.jsonl: one for every completion that was sampled for training.

The stage hands them to its loop (StageLoop.keep_groups), which appends them to the file and cuts
them back where a run resumes. Where the stage has `forecast_every`, those of an iteration that is
looked into are written after its first update.

With `log.tokens` a row has `per_token`: as lists, the text of each token and what is known of its
log-prob, at the sampler's temperature, in nats, with four decimals:

    sample_logprob    as the sampler computed it
    old_logprob       of the same policy by the training graph, where updates compare theirs with it
    ref_logprob       of the reference, where there is a KL
    teacher_logprob   of the teacher, where there is one
    entropy           -Σ_v π(v) log π(v), π what the token was drawn from before any top_k, top_p or
                      min_p: of the policy that sampled, by the training graph
    predicted_change  of the log-prob by the iteration's first update, to first order, and what it
    realised_change   was (grpo/diagnostics/forecast.py), of tokens that it learnt from; four digits
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grpo.algorithms.groups import Groups
from grpo.data.examples import Example
from grpo.data.templates import Template, prompt_text
from grpo.rewards.scores import Scores
from grpo.rollout.generate import finish_reasons
from grpo.rollout.sampler import Rollout
from models.tokenizer import Tokenizer

KNOWN = ("sample_logprob", "old_logprob", "ref_logprob", "teacher_logprob")


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


def with_tokens(
    rows: Sequence[dict[str, Any]], groups: Groups, entropy_BC: Any, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """The rows with what is known of each of their tokens."""
    known = {name: getattr(groups, f"{name}_BC") for name in KNOWN} | {"entropy": entropy_BC}
    known = {name: np.asarray(x_BC) for name, x_BC in known.items() if x_BC is not None}
    C = groups.completion_mask_BC.shape[1]
    shown = []
    for b, row in enumerate(rows):
        is_there_C = groups.completion_mask_BC[b].astype(bool)
        ids = groups.ids_BT[b, -C:][is_there_C]
        numbers = {
            name: [round(float(x), 4) for x in value_BC[b][is_there_C]]
            for name, value_BC in known.items()
        }
        texts = [tokenizer.decode([token]) for token in ids]
        shown.append({**row, "per_token": {"text": texts, **numbers}})
    return shown


def with_changes(
    rows: Sequence[dict[str, Any]],
    row_B: np.ndarray,
    mask_BC: np.ndarray,
    changes: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """The rows with what an update has done to their tokens: row b of its batch is row_B[b].

    A row whose group was left out had no part in the update.
    """
    shown = list(rows)
    for b, number in enumerate(row_B):
        is_there_C = mask_BC[b].astype(bool)
        if is_there_C.any():
            known = dict(shown[number]["per_token"])
            for name, change_BC in changes.items():
                known[name] = [float(f"{x:.4g}") for x in change_BC[b][is_there_C]]
            shown[number] = {**shown[number], "per_token": known}
    return shown
