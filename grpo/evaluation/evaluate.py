"""A policy's accuracy on test examples, greedily or from samples; nothing of training is touched.

Keys are of the purpose "evaluate", apart from all that training draws, and depend on the example's
place only: how often and in which batches something is evaluated changes no token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from grpo.data.examples import Example
from grpo.evaluation.metrics import accuracy_metrics, sample_metrics
from grpo.rewards.correct import correct
from grpo.rollout.generate import GREEDY, Completions, Sampler, finish_reasons
from grpo.runs.run import Run
from grpo.training.scoring import Policy

Rows = list[dict[str, Any]]
GREEDY_STEP, SAMPLED_STEP = 0, 1  # of the keys


def evaluate_greedy(
    run: Run, policy: Policy, examples: Sequence[Example], *, batch: int, max_new_tokens: int
) -> tuple[dict[str, float], Rows]:
    """The metrics of the likeliest completion of every example, and a row for each."""
    parts = list(
        sample_all(
            run, policy, examples, batch=batch, group=1, step=GREEDY_STEP, sampling=GREEDY,
            max_new_tokens=max_new_tokens,
        )
    )  # fmt: skip
    texts = [text for part in parts for text in part.texts]
    length_N, truncated_N = joined(parts, "length_B"), joined(parts, "truncated_B")
    right_N = correct(examples, texts)
    metrics = accuracy_metrics(right_N, texts, length_N, truncated_N)
    return metrics, rows_of(examples, 1, texts, right_N, length_N, truncated_N)


def evaluate_samples(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    *,
    batch: int,
    max_new_tokens: int,
    samples: int,
    sampling: Mapping[str, Any],
    ks: Sequence[int],
) -> tuple[dict[str, float], Rows]:
    """pass@k and maj@k of `samples` completions of every example, and a row for each."""
    parts = list(
        sample_all(
            run, policy, examples, batch=max(1, batch // samples), group=samples,
            step=SAMPLED_STEP, sampling=sampling, max_new_tokens=max_new_tokens,
        )
    )  # fmt: skip
    texts = [text for part in parts for text in part.texts]
    repeated = [example for example in examples for _ in range(samples)]
    right_N = correct(repeated, texts)
    shape = (len(examples), samples)
    metrics = sample_metrics(
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        right_N["lenient"].reshape(shape),
        joined(parts, "mean_logprob_B").reshape(shape),
        ks,
    )
    length_N, truncated_N = joined(parts, "length_B"), joined(parts, "truncated_B")
    for name, yes_N in right_N.items():
        metrics[f"sampled/accuracy/{name}"] = float(yes_N.mean())
    metrics["sampled/length/mean"] = float(length_N.mean())
    return metrics, rows_of(examples, samples, texts, right_N, length_N, truncated_N)


def sample_all(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    *,
    batch: int,
    group: int,
    step: int,
    sampling: Mapping[str, Any],
    max_new_tokens: int,
) -> Iterator[Completions]:
    """The completions of all examples, `batch` prompts at a time; the last batch is filled up."""
    sampler = Sampler(run, policy, run.config["data"]["buckets"])
    batch = min(batch, len(examples))
    for first in range(0, len(examples), batch):
        run.stop.check()
        part = examples[first : first + batch]
        filled = [*part, *[part[-1]] * (batch - len(part))]  # one shape, compiled once
        told = sampler.sample(
            filled, purpose="evaluate", step=step, first_row=first * group, sampling=sampling,
            group=group, max_new_tokens=max_new_tokens,
        )  # fmt: skip
        rows = len(part) * group
        yield told._replace(
            texts=told.texts[:rows],
            length_B=told.length_B[:rows],
            truncated_B=told.truncated_B[:rows],
            mean_logprob_B=told.mean_logprob_B[:rows],
        )


def joined(parts: Sequence[Completions], field: str) -> np.ndarray:
    """One array of all batches."""
    return np.concatenate([getattr(part, field) for part in parts])


def rows_of(
    examples: Sequence[Example],
    samples: int,
    texts: Sequence[str],
    right_N: Mapping[str, np.ndarray],
    length_N: np.ndarray,
    truncated_N: np.ndarray,
) -> Rows:
    """What a reader wants to see of every completion."""
    reasons = finish_reasons(truncated_N)
    return [
        {
            "id": examples[n // samples]["id"],
            "sample": n % samples,
            "question": examples[n // samples]["question"],
            "gold": examples[n // samples]["answer"],
            "completion": texts[n],
            "right": {name: bool(yes_N[n]) for name, yes_N in right_N.items()},
            "tokens": int(length_N[n]),
            "finish": reasons[n],
        }
        for n in range(len(texts))
    ]
