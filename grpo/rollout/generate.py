"""Completions of examples: prompts in, texts out, by one policy.

The tokens that are trained are the sampler's own; the text is made from them, for rewards and
readers, and never turned back into tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.distribution import Sampling
from grpo.data.examples import Example
from grpo.data.padding import pad_prompts
from grpo.data.templates import prompt_ids
from grpo.rollout.sampler import Rollout, decoding_params, rollout, row_keys
from grpo.runs.run import Run
from grpo.training.scoring import Policy

Array = jax.Array
GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


class Completions(NamedTuple):
    """What a policy wrote: row p·G + g is completion g of prompt p."""

    rollout: Rollout
    texts: list[str]
    length_B: np.ndarray  # tokens, the one that stops included
    truncated_B: np.ndarray
    mean_logprob_B: np.ndarray

    @property
    def tokens(self) -> tuple[Array, Array]:
        """ids_BT and mask_BT of prompts and completions together."""
        told = self.rollout
        ids_BT = jnp.concatenate([told.prompt_ids_BI, told.completion_ids_BC], axis=1)
        masks = told.prompt_mask_BI, told.completion_mask_BC.astype(jnp.int32)
        return ids_BT, jnp.concatenate(masks, axis=1)


class Sampler:
    """A policy as it stands, ready to write completions."""

    def __init__(self, run: Run, policy: Policy, buckets: Sequence[int]):
        self._run, self._buckets = run, buckets
        self._weights = decoding_params(
            policy.params,
            policy.adapter,
            lora_scale=policy.scale,
            dtype=jnp.dtype(run.config["model"]["dtype"]),
            mesh=run.mesh,
        )
        # Where the adapter is merged, policies with and without one share their programs.
        scale = policy.scale if "lora" in self._weights else 0.0
        self._module = run.module(policy).clone(lora_scale=scale)

    def sample(
        self,
        examples: Sequence[Example],
        *,
        purpose: str,
        step: int,
        first_row: int,
        sampling: Mapping[str, Any],
        group: int,
        max_new_tokens: int,
    ) -> Completions:
        """`group` completions of every example; rows are numbered from `first_row` on."""
        tokenizer = self._run.tokenizer
        prompts = [prompt_ids(tokenizer, example, self._run.template) for example in examples]
        ids_PI, mask_PI = pad_prompts(prompts, self._buckets)
        rows_B = first_row + jnp.arange(len(examples) * group)
        told = rollout(
            self._module,
            self._weights,
            ids_PI,
            mask_PI,
            row_keys(self._run.seed, purpose, step, rows_B),
            Sampling(**sampling),
            np.array(tokenizer.stop_ids),
            group=group,
            max_new_tokens=max_new_tokens,
        )
        mask_BC, ids_BC = np.asarray(told.completion_mask_BC), np.asarray(told.completion_ids_BC)
        length_B = mask_BC.sum(axis=1)
        logprob_BC = np.where(mask_BC, np.asarray(told.sample_logprob_BC), 0.0)
        return Completions(
            rollout=told,
            texts=[self._text(ids[:n]) for ids, n in zip(ids_BC, length_B, strict=True)],
            length_B=length_B,
            truncated_B=np.asarray(told.truncated_B),
            mean_logprob_B=logprob_BC.sum(axis=1) / length_B,
        )

    def _text(self, ids: np.ndarray) -> str:
        """The text of a completion without the token that stopped it."""
        tokenizer = self._run.tokenizer
        return tokenizer.decode(list(ids[:-1] if ids[-1] in tokenizer.stop_ids else ids))


def finish_reasons(truncated_B: np.ndarray) -> list[str]:
    """Why each completion ended."""
    return ["length" if truncated else "stop" for truncated in truncated_B]
