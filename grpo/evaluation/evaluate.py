"""A policy's accuracy on examples, greedily or from samples; nothing of training is touched.

Keys are of the purpose "evaluate", apart from all that training draws, and depend on the example's
place only: how often and in which batches something is evaluated changes no token.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.data.examples import Example
from grpo.data.templates import Template, prompt_ids, prompt_text
from grpo.evaluation.metrics import accuracy_metrics, sample_metrics
from grpo.rewards.correct import correct
from grpo.rollout.generate import GREEDY, Sampler, finish_reasons, sampling_programs, texts_of
from grpo.rollout.sampler import row_keys
from grpo.training.program import Program
from models.policy import Policy

Rows = list[dict[str, Any]]
GREEDY_STEP, SAMPLED_STEP, GRADED_STEP = 0, 1, 2  # of the keys


class Setting(NamedTuple):
    """What all evaluations of a run have in common."""

    seed: int
    template: Template
    buckets: Sequence[int]
    check: Callable[[], None]  # is called between batches, and may raise to end it


class Answers(NamedTuple):
    """What a policy wrote: N completions, those of an example one after the other."""

    prompts: list[list[int]]  # of each example, what it was given
    texts: list[str]
    length_E: np.ndarray
    truncated_E: np.ndarray
    mean_logprob_E: np.ndarray


def evaluate_greedy(
    policy: Policy,
    examples: Sequence[Example],
    setting: Setting,
    *,
    batch: int,
    max_new_tokens: int,
) -> tuple[dict[str, float], Rows]:
    """The metrics of the likeliest completion of every example, and a row for each."""
    rows = completions_of(
        policy, examples, setting, batch=batch, step=GREEDY_STEP, sampling=GREEDY,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    return looks_of(rows), rows


def completions_of(
    policy: Policy,
    examples: Sequence[Example],
    setting: Setting,
    *,
    batch: int,
    step: int,
    sampling: Mapping[str, Any],
    max_new_tokens: int,
) -> Rows:
    """A row for one completion of every example."""
    answers = sample_all(
        policy, examples, setting, batch=batch, group=1, step=step, sampling=sampling,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    return rows_of(examples, answers, correct(examples, answers.texts), setting.template)


def looks_of(rows: Rows) -> dict[str, float]:
    """The metrics of rows that are of one completion of each example."""
    return accuracy_metrics(
        {name: np.array([row["right"][name] for row in rows]) for name in rows[0]["right"]},
        [row["completion"] for row in rows],
        np.array([row["tokens"] for row in rows]),
        np.array([row["finish"] == "length" for row in rows]),
        samples=1,
    )


def evaluate_samples(
    policy: Policy,
    examples: Sequence[Example],
    setting: Setting,
    *,
    batch: int,
    max_new_tokens: int,
    samples: int,
    sampling: Mapping[str, Any],
    ks: Sequence[int],
) -> tuple[dict[str, float], Rows]:
    """The metrics of `samples` completions of every example, with votes, and a row for each."""
    answers = sample_all(
        policy, examples, setting, batch=prompts_of(batch, samples), group=samples,
        step=SAMPLED_STEP, sampling=sampling, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    texts = answers.texts
    correct_E = correct([example for example in examples for _ in range(samples)], texts)
    shape = (len(examples), samples)
    metrics = sample_metrics(
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        [example["answer"] for example in examples],
        correct_E["lenient"].reshape(shape),
        answers.mean_logprob_E.reshape(shape),
        ks,
    )
    looks = accuracy_metrics(
        correct_E, texts, answers.length_E, answers.truncated_E, samples=samples
    )
    metrics |= {f"sampled/{name}": value for name, value in looks.items()}
    return metrics, rows_of(examples, answers, correct_E, setting.template)


def prompts_of(batch: int, samples: int) -> int:
    """How many prompts make a batch of so many completions."""
    return max(1, batch // samples)


def sample_all(
    policy: Policy,
    examples: Sequence[Example],
    setting: Setting,
    *,
    batch: int,
    group: int,
    step: int,
    sampling: Mapping[str, Any],
    max_new_tokens: int,
) -> Answers:
    """Completions of all examples, `batch` prompts at a time; the last batch is filled up."""
    tokenizer, sampler = policy.own_tokenizer, Sampler(policy, setting.buckets)
    batch, columns = min(batch, len(examples)), []
    prompts, texts = [], []
    for first in range(0, len(examples), batch):
        setting.check()
        part = examples[first : first + batch]
        filled = [*part, *[part[-1]] * (batch - len(part))]  # one shape, compiled once
        rows_B = first * group + jnp.arange(batch * group)
        asked = [prompt_ids(tokenizer, example, setting.template) for example in filled]
        rollout = sampler.sample(
            asked,
            row_keys(setting.seed, "evaluate", step, rows_B),
            sampling=sampling, group=group, max_new_tokens=max_new_tokens,
        )  # fmt: skip
        mask_BC, length_B = np.asarray(rollout.completion_mask_BC), np.asarray(rollout.length_B)
        logprob_BC = np.where(mask_BC, np.asarray(rollout.sample_logprob_BC), 0.0)
        mean_logprob_B = logprob_BC.sum(axis=1) / length_B
        rows = len(part) * group
        prompts += asked[: len(part)]
        texts += texts_of(rollout, tokenizer)[:rows]
        of_batch = length_B, np.asarray(rollout.truncated_B), mean_logprob_B
        columns.append([x_B[:rows] for x_B in of_batch])
    return Answers(prompts, texts, *(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def rows_of(
    examples: Sequence[Example],
    answers: Answers,
    correct_E: Mapping[str, np.ndarray],
    template: Template,
) -> Rows:
    """What a reader wants to see of every completion; of the first of a problem, what was asked."""
    samples, reasons = len(answers.texts) // len(examples), finish_reasons(answers.truncated_E)
    rows = []
    for n, text in enumerate(answers.texts):
        example = examples[n // samples]
        row = {
            "id": example["id"],
            "sample": n % samples,
            "question": example["question"],
            "gold": example["answer"],
            "completion": text,
            "right": {name: bool(yes_E[n]) for name, yes_E in correct_E.items()},
            "tokens": int(answers.length_E[n]),
            "finish": reasons[n],
        }
        if example.get("domain"):
            row["domain"] = example["domain"]
        if n % samples == 0:  # the others were asked the same
            row["prompt"] = prompt_text(example, template)
            row["prompt_ids"] = answers.prompts[n // samples]
        rows.append(row)
    return rows


def greedy_programs(
    policy: Policy, buckets: Sequence[int], *, examples: int, batch: int, max_new_tokens: int
) -> dict[str, Program]:
    """What `evaluate_greedy` runs on so many examples."""
    return sampling_programs(
        policy, buckets, prompts=min(batch, examples), sampling=GREEDY, group=1,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
