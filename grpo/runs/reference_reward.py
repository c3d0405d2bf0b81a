"""The reward of a reference answer's probability (RLPR, arXiv:2506.18254): `reference_probability`.

    r = clip(p(q, reasoning) - p(q, none), 0, 1)        p = 1/n Σ_t π(a_t | ..., a_<t)

a is the example's answer in n tokens, put where the completion has its own: behind its first
<answer>. The policy as it stands reads it, at temperature 1, once after the reasoning that it wrote
and once after none, as "<reasoning></reasoning><answer>"; it may have learnt since (`staleness`). A
completion without <answer> is read as none, so it earns 0; one that was tokenised anew and no
longer fits has no value.

The mean of probabilities, not their product, as in the paper. Deviation: its filter of prompts by
an average deviation is not here; `dynamic_sampling` leaves out groups without any.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.data.examples import Example
from grpo.data.packing import one_each
from grpo.data.templates import Template, prompt_ids
from grpo.rewards.extract import ANSWER, REASONING, REASONING_END
from grpo.runs.given_rewards import Batch, Values
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from grpo.training.program import Program, rows_shape
from models.policy import Policy
from models.sharding import put_rows
from models.tokenizer import Tokenizer

Config = Mapping[str, Any]
NAME = "reference_probability"  # in a reward table
NONE = f"{REASONING}{REASONING_END}{ANSWER}"


class Place(NamedTuple):
    """A row: the tokens of a prompt, what stands before the answer, the answer."""

    prompt: list[int]
    before: list[int]
    answer: list[int]


def about(stage: Config) -> Iterator[str]:
    """What is wrong with the options."""
    if stage["rewards"][NAME]["options"]["max_answer"] < 1:
        yield f"rewards.{NAME}.options.max_answer: expected 1 token or more"


def programs(stage: Config, policy: Policy, buckets: Sequence[int]) -> dict[str, Program]:
    """What reads the answers, for each bucket."""
    rows, width = stage["prompts"] * (stage["group"] + 1), width_of(stage)
    shapes = [rows_shape(policy.mesh, jnp.int32, rows, bucket + width) for bucket in buckets]
    logprobs = Logprobs(module=policy.module, temperature=1.0, with_entropy=False)
    static = {"logprobs": logprobs, "completion": width}
    static["parts"] = stage["microbatches"] * stage["minibatches"]
    cases = tuple((policy.variables, x_BT, x_BT) for x_BT in shapes)
    return {NAME: Program(logprobs_of_rows, cases, static)}


def width_of(stage: Config) -> int:
    """The tokens that may stand behind a prompt."""
    return stage["max_new_tokens"] + stage["rewards"][NAME]["options"]["max_answer"]


class ReferenceProbability(NamedTuple):
    """What a stage needs for it."""

    program: Program
    stage: Config
    template: Template
    buckets: Sequence[int]

    def __call__(self, batch: Batch) -> Values:
        """reward_B."""
        tokenizer, G = batch.policy.own_tokenizer, self.stage["group"]
        rows = [place_of(tokenizer, self.template, *pair)
                for pair in zip(batch.examples, batch.texts, strict=True)]  # fmt: skip
        rows += [place_of(tokenizer, self.template, example, NONE)
                 for example in batch.examples[::G]]  # fmt: skip
        p_N = self.probabilities(batch.policy, rows)
        p_B, none_P = p_N[: len(batch.texts)], p_N[len(batch.texts) :]
        return Values(np.clip(p_B - np.repeat(none_P, G), 0, 1), {})

    def probabilities(self, policy: Policy, rows: Sequence[Place]) -> np.ndarray:
        """p of every row; NaN where it does not fit."""
        width, options = width_of(self.stage), self.stage["rewards"][NAME]["options"]
        fits_N = np.array([
            len(row.before) + len(row.answer) <= width
            and len(row.answer) <= options["max_answer"] for row in rows
        ])  # fmt: skip
        kept = [row if fits else Place(row.prompt, [], row.answer[:1])
                for row, fits in zip(rows, fits_N, strict=True)]  # fmt: skip
        pairs = [(row.prompt, [*row.before, *row.answer]) for row in kept]
        tokens = put_rows(one_each(pairs, self.buckets, width)[:2], policy.mesh)
        logprob_NC = np.asarray(self.program(policy.variables, *tokens))
        found = [
            np.exp(logprob_C[len(row.before) : len(row.before) + len(row.answer)]).mean()
            for row, logprob_C in zip(kept, logprob_NC, strict=True)
        ]
        return np.where(fits_N, found, np.nan)


def place_of(tokenizer: Tokenizer, template: Template, example: Example, text: str) -> Place:
    """Where an answer stands in a completion, and the tokens before it."""
    before = text[: text.find(ANSWER) + len(ANSWER)] if ANSWER in text else NONE
    return Place(
        prompt_ids(tokenizer, example, template),
        tokenizer.encode(before, bos=False),
        tokenizer.encode(example["answer"], bos=False),
    )
