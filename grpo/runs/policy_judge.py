"""A model of ours as a judge: how likely it finds each word of a scale, in one pass, not sampled.

    soft   Σ_k v_k p(k) / Σ_k p(k)    v_k the worth of word k: p(yes) / (p(yes) + p(no))
    hard   the worth of one word      the likeliest at temperature 0, else drawn among the scale's,
                                      by the question's key: the same question, the same verdict

The text of a reply has the probabilities. Below `least_mass` in all the model did not mean to
answer by the scale: that has failed, as has a prompt of more than `max_prompt` tokens.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.data.examples import DataError
from grpo.data.padding import pad_prompts
from grpo.data.templates import TEMPLATES, prompt_ids
from grpo.judges.asking import Question, Reply
from grpo.judges.prompts import SCALES, values_of
from grpo.training.choices import choices_of_rows
from grpo.training.program import Program, rows_shape
from models.policy import Policy
from models.sharding import put_rows
from models.tokenizer import Tokenizer

Config = Mapping[str, Any]
Choices = tuple[tuple[int, ...], ...]  # of each word of a scale, the tokens that are it


def judge_program(section: Config, policy: Policy, choices: Choices) -> Program:
    """What reads `batch` prompts at a time."""
    shape_BT = rows_shape(policy.mesh, jnp.int32, section["batch"], section["max_prompt"])
    static = {"module": policy.module, "choices": choices, "parts": 1}
    return Program(choices_of_rows, ((policy.variables, shape_BT, shape_BT),), static)


def choices_of(tokenizer: Tokenizer, scale: str) -> Choices:
    """The tokens of each of a scale's words, however it is capitalised."""
    found = []
    for word in SCALES[scale]:
        written = {word, word.capitalize(), word.upper()}
        ids = [tokenizer.encode(text, bos=False) for text in sorted(written)]
        found.append(tuple(one[0] for one in ids if len(one) == 1))
        if not found[-1]:
            raise DataError(
                f"scale={scale!r}: the judge's tokenizer has no token for {word!r}: use another "
                "scale, or name the word in model.whole"
            )
    return tuple(found)


class PolicyJudge(NamedTuple):
    """An Ask."""

    policy: Policy
    program: Program
    section: Config

    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        """Its replies, `batch` of them at a time."""
        tokenizer, template = self.policy.own_tokenizer, TEMPLATES["plain"]
        prompts = [
            prompt_ids(tokenizer, {"question": question.prompt}, template) for question in questions
        ]
        limit, size = self.section["max_prompt"], self.section["batch"]
        fitting = [row for row, prompt in enumerate(prompts) if len(prompt) <= limit]
        replies = {
            row: Reply(reason=f"too long: {len(prompt)} tokens, {limit} fit", attempts=0)
            for row, prompt in enumerate(prompts)
            if len(prompt) > limit
        }
        for first in range(0, len(fitting), size):
            rows = fitting[first : first + size]
            logprob_BK = self.read([prompts[row] for row in rows])
            for row, logprob_K in zip(rows, logprob_BK, strict=True):
                replies[row] = reply_of(logprob_K, questions[row].key, self.section)
        return [replies[row] for row in range(len(questions))]

    def read(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """logprob_BK of up to `batch` prompts."""
        filled = [*prompts, *[prompts[0]] * (self.section["batch"] - len(prompts))]
        padded = pad_prompts(filled, (self.section["max_prompt"],))
        tokens = put_rows(tuple(padded), self.policy.mesh)
        return np.asarray(self.program(self.policy.variables, *tokens))[: len(prompts)]


def reply_of(logprob_K: np.ndarray, key: str, section: Config) -> Reply:
    """The reply that some probabilities make."""
    values, p_K = values_of(section["scale"]), np.exp(np.asarray(logprob_K, float))
    mass = float(p_K.sum())
    if not mass >= section["least_mass"]:
        return Reply(reason=f"off scale: {mass:.3f} of its probability is on it", attempts=0)
    said = json.dumps({word: round(float(p), 6) for word, p in zip(values, p_K, strict=True)})
    if section["scores"] == "soft":
        worth = float((np.array([*values.values()]) * p_K).sum() / mass)
        return Reply(text=said, score=min(max(worth, 0.0), 1.0), attempts=0)
    return Reply(text=said, score=[*values.values()][drawn(p_K, key, section)], attempts=0)


def drawn(p_K: np.ndarray, key: str, section: Config) -> int:
    """The place of one word: the likeliest, or one that is drawn."""
    if section["temperature"] == 0:
        return int(p_K.argmax())
    q_K = p_K ** (1 / section["temperature"])
    number = int(key[:8], 16)
    random = np.random.RandomState([section["seed"], number]).random_sample()
    return int(min(np.searchsorted(np.cumsum(q_K / q_K.sum()), random), len(q_K) - 1))
