"""A policy of ours as a teacher: each question one completion, drawn by the question's own key.

    key_q = fold_in(row_keys(seed), first bits of sha256(who is asked; prompt))

So a reply is the same whatever is asked beside it, and in whatever order: a recording that was cut
off anywhere is gone on with as if it had not been. Who is asked is a digest of the policy, not its
path: weights, sizes, tokenizer and dtype. All batches have one size and one bucket, so that one
program draws them all; a batch that is not full is filled with copies of its first question.

A completion that is cut off is a reply as any other; it has no form, but where the last token that
it may have closes its answer.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from grpo.data.templates import TEMPLATES, Template, prompt_ids
from grpo.judges.asking import Question, Reply
from grpo.judges.collecting import Sample
from grpo.judges.replay import recorded
from grpo.rollout.generate import Sampler, texts_of
from grpo.rollout.sampler import row_keys
from models.policy import Policy


def asked_by(way: str, template: Template) -> Template:
    """The template in which a policy is asked: its own, or where it is told what to do none."""
    return template if way == "as_trained" else TEMPLATES["plain"]


def policy_samples(
    policy: Policy,
    recording: pathlib.Path,
    *,
    template: Template,
    sampling: Mapping[str, Any],
    max_new_tokens: int,
    seed: int,
    samples: int,
    bucket: int,
    batch: int,
) -> list[Sample]:
    """The policy with a seed for each sample, every one out of the same recording."""
    asked = {
        "policy": digest(policy), "template": template, "sampling": dict(sampling),
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    sampler = Sampler(policy, (bucket,))
    found = []
    for each in ({**asked, "seed": seed + n} for n in range(samples)):
        ask = functools.partial(answered, sampler, each, batch)
        found.append(Sample(recorded(ask, recording, again=False), each))
    return found


def answered(
    sampler: Sampler, asked: Mapping[str, Any], batch: int, questions: Sequence[Question]
) -> list[Reply]:
    """The replies to some questions, `batch` of them at a time."""
    return [
        Reply(text=text, attempts=1)
        for first in range(0, len(questions), batch)
        for text in completed(sampler, asked, batch, questions[first : first + batch])
    ]


def completed(
    sampler: Sampler, asked: Mapping[str, Any], batch: int, questions: Sequence[Question]
) -> Iterator[str]:
    """The completions of up to `batch` questions."""
    filled = [*questions, *[questions[0]] * (batch - len(questions))]
    example = ({"question": question.prompt} for question in filled)
    number_B = np.array([int(question.key[:8], 16) for question in filled], np.uint32)
    rollout = sampler.sample(
        [prompt_ids(sampler.tokenizer, one, asked["template"]) for one in example],
        row_keys(asked["seed"], "traces", 0, number_B),
        sampling=asked["sampling"], group=1, max_new_tokens=asked["max_new_tokens"],
    )  # fmt: skip
    yield from texts_of(rollout, sampler.tokenizer)[: len(questions)]


def digest(policy: Policy) -> str:
    """What tells a policy from any other: all that its completions follow from."""
    how = {
        "config": dataclasses.asdict(policy.config), "dtype": str(policy.compute_dtype),
        "scale": policy.scale,
    }  # fmt: skip
    found = hashlib.sha256(json.dumps(how, sort_keys=True, default=str).encode("ascii"))
    found.update(policy.own_tokenizer.proto)
    for path, leaf in jax.tree_util.tree_leaves_with_path(policy.variables):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode("ascii"))
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
