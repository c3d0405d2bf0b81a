"""A policy writes completions: prompts in, tokens and texts out.

The tokens that are trained are the sampler's own; the text is made from them, for rewards and
readers, and never turned back into tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.decoding import DECODINGS, sampling_of
from grpo.algorithms.distribution import Sampling
from grpo.data.padding import pad_prompts
from grpo.rollout.sampler import Rollout, decoding_params, rollout, row_keys
from grpo.rollout.seats import rollout_in_seats
from grpo.training.program import Program, Shape, shapes_on
from models.gemma import Gemma
from models.policy import Policy
from models.tokenizer import Tokenizer

Array = jax.Array
GREEDY = sampling_of({"preset": "greedy", **DECODINGS["greedy"]})
NUM_STOP_IDS = 2  # of every family


class Sampler:
    """A policy as it stands, ready to write completions: its weights are copied for decoding."""

    def __init__(self, policy: Policy, buckets: Sequence[int]):
        self._policy, self._buckets, self.tokenizer = policy, buckets, policy.own_tokenizer
        self._stop_ids = np.array(self.tokenizer.stop_ids, np.int32)
        self._weights = decoding_program(policy)(policy.params, policy.adapter)
        self._module = decoding_module(policy, self._weights)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        key_B: Array,
        *,
        sampling: Mapping[str, Any],
        group: int,
        max_new_tokens: int,
    ) -> Rollout:
        """`group` completions of every prompt, each row by its own key."""
        ids_PI, mask_PI = pad_prompts(prompts, self._buckets)
        write, static = writing(self._policy, len(prompts) * group)
        return write(
            self._module,
            self._weights,
            ids_PI,
            mask_PI,
            key_B,
            Sampling(**sampling),
            self._stop_ids,
            group=group,
            max_new_tokens=max_new_tokens,
            **static,
        )


def writing(policy: Policy, rows: int) -> tuple[Any, dict[str, int]]:
    """What writes so many completions, and what it is compiled for beside their shapes."""
    seats = min(policy.seats or rows, rows)
    if seats == rows and not policy.halvings:
        return rollout, {}
    return rollout_in_seats, {"seats": seats, "halvings": policy.halvings}


def decoding_program(policy: Policy) -> Program:
    """The copy of a policy's weights that a rollout decodes with."""
    static = {"lora_scale": policy.scale, "dtype": policy.compute_dtype, "mesh": policy.mesh}
    return Program(decoding_params, ((policy.params, policy.adapter),), static)


def decoding_module(policy: Policy, weights: Mapping[str, Any]) -> Gemma:
    """The module for these weights: where the adapter is merged into them, that of the base."""
    return policy.module.clone(lora_scale=policy.scale if "lora" in weights else 0.0)


def sampling_programs(
    policy: Policy,
    buckets: Sequence[int],
    *,
    prompts: int,
    sampling: Mapping[str, Any],
    group: int,
    max_new_tokens: int,
) -> dict[str, Program]:
    """What a Sampler runs for so many prompts, for each bucket that these may need."""
    decoding = decoding_program(policy)
    weights = decoding.function.eval_shape(policy.params, policy.adapter, **decoding.static)
    weights = shapes_on(policy.mesh, weights, ("tp",))
    module = decoding_module(policy, weights)
    key_B = jax.eval_shape(lambda: row_keys(0, "train", 0, jnp.arange(prompts * group)))
    stop_ids = Shape((NUM_STOP_IDS,), jnp.dtype(jnp.int32))
    cases = []
    for bucket in buckets:
        ids_PI = Shape((prompts, bucket), jnp.dtype(jnp.int32))
        cases.append((module, weights, ids_PI, ids_PI, key_B, Sampling(**sampling), stop_ids))
    write, static = writing(policy, prompts * group)
    static |= {"group": group, "max_new_tokens": max_new_tokens}
    return {
        "decoding weights": decoding,
        "rollout": Program(write, tuple(cases), static),
    }


def texts_of(rollout: Rollout, tokenizer: Tokenizer) -> list[str]:
    """The texts of the completions, without the tokens that stopped them."""
    ids_BC, length_B = np.asarray(rollout.completion_ids_BC), np.asarray(rollout.length_B)
    rows = [ids_C[:length] for ids_C, length in zip(ids_BC, length_B, strict=True)]
    stops = tokenizer.stop_ids
    return [tokenizer.decode(list(ids[:-1] if ids[-1] in stops else ids)) for ids in rows]


def finish_reasons(truncated_B: Array | np.ndarray) -> list[str]:
    """Why each completion ended."""
    return ["length" if truncated else "stop" for truncated in np.asarray(truncated_B)]
