"""Completions as they are written are those of the sampler."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.data.padding import pad_prompts
from grpo.rollout import stream as streams
from grpo.rollout.generate import GREEDY, Sampler, decoding_module, decoding_program
from grpo.rollout.sampler import row_keys
from grpo.rollout.stream import stream
from tests.tiny_run import policy_of

PROMPTS = [[2, 5, 9, 40], [2, 7, 7, 30, 31, 60]]
DRAWN = {"temperature": 1.3, "top_k": 40, "top_p": 0.95, "min_p": 0.0}
NEW, GROUP = 13, 2


def both(sampling, chunk, seed=0):
    """What the sampler writes, and every look at what the stream has."""
    policy = policy_of()
    keys = row_keys(seed, "chat", 0, jnp.arange(len(PROMPTS) * GROUP))
    whole = Sampler(policy, [8]).sample(
        PROMPTS, keys, sampling=sampling, group=GROUP, max_new_tokens=NEW
    )
    weights = decoding_program(policy)(policy.params, policy.adapter)
    looks = stream(
        decoding_module(policy, weights), weights, *pad_prompts(PROMPTS, [8]), keys, sampling,
        np.array(policy.own_tokenizer.stop_ids, np.int32), group=GROUP, max_new_tokens=NEW,
        chunk=chunk,
    )  # fmt: skip
    ids_BC, length_B = np.asarray(whole.completion_ids_BC), np.asarray(whole.length_B)
    return [row[:length] for row, length in zip(ids_BC, length_B, strict=True)], list(looks)


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_stream_has_the_samplers_tokens(sampling, chunk):
    whole, looks = both(sampling, chunk)
    assert len(looks) == 1 + -(-(NEW - 1) // chunk)
    for row, want in enumerate(whole):
        np.testing.assert_array_equal(looks[-1][row], want)
        sizes = [len(look[row]) for look in looks]
        assert sizes == [min(1 + chunk * n, NEW, len(want)) for n in range(len(looks))]
        for look in looks:  # it only ever grows
            np.testing.assert_array_equal(look[row], want[: len(look[row])])


def test_rows_that_end_are_left_and_the_stream_ends_with_the_last(monkeypatch):
    stops = []
    for seed in range(12):  # some draw a stop token early, in some rows
        whole, looks = both(DRAWN | {"temperature": 3.0, "top_k": 0, "top_p": 1.0}, 1, seed)
        longest = max(map(len, whole))
        assert len(looks) == longest
        assert [len(row) for row in looks[-1]] == [len(row) for row in whole]
        stops.append(longest < NEW or min(map(len, whole)) < NEW)
    assert any(stops)


def test_all_chunks_and_settings_are_one_program():
    both(GREEDY, 3)
    program = cast(Any, streams._decode)
    before = program._cache_size()
    both(DRAWN, 4, seed=9)
    assert program._cache_size() == before
