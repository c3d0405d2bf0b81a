"""Completions through fewer seats than rows are those of the plain loop, row by row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distribution import Sampling
from grpo.rollout.generate import Sampler, writing
from grpo.rollout.sampler import decoding_params, rollout, row_keys
from grpo.rollout.seats import rollout_in_seats
from models.gemma import Gemma
from models.sharding import make_mesh, shardings
from tests.helpers import SHALLOW, left_padded, shallow_params
from tests.tiny_run import policy_of

PLAIN, GREEDY = Sampling(1.0, 0, 1.0, 0.0), Sampling(0.0, 0, 1.0, 0.0)
IDS, MASK = left_padded([5, 9, 3, 1, 7, 2, 8, 4], 9)  # one of a single token
GROUP, NEW = 3, 30  # beyond the window of eight
ROWS = len(IDS) * GROUP
STOP = np.array([7, 40, 41, 42, 43, 44, 45, 46], np.int32)  # about one token in twelve
NEVER = np.array([1000], np.int32)


def arguments(stop, sampling=PLAIN, mesh=None):
    """What both loops are given."""
    params = shallow_params()
    if mesh is not None:
        params = jax.device_put(params, shardings(params, mesh))
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.float32, mesh=mesh)
    keys = row_keys(1, "train", 0, np.arange(ROWS))
    return Gemma(SHALLOW, mesh=mesh), weights, IDS, MASK, keys, sampling, stop


def in_seats(seats, halvings=0, stop=STOP, sampling=PLAIN, mesh=None):
    return rollout_in_seats(
        *arguments(stop, sampling, mesh), group=GROUP, max_new_tokens=NEW, seats=seats,
        halvings=halvings,
    )  # fmt: skip


def plain(stop=STOP, sampling=PLAIN):
    return rollout(*arguments(stop, sampling), group=GROUP, max_new_tokens=NEW)


def assert_equal(got, want):
    for name in ("ids_BT", "mask_BT", "completion_mask_BC", "truncated_B"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    np.testing.assert_allclose(got.sample_logprob_BC, want.sample_logprob_BC, atol=1e-5)


def test_the_rows_are_ragged():
    length_B = np.asarray(plain().length_B)
    assert length_B.min() <= 2 and length_B.max() == NEW and len(set(length_B)) > 8
    assert 0 < np.asarray(plain().truncated_B).sum() < ROWS


@pytest.mark.parametrize(
    ("seats", "halvings"), [(1, 0), (4, 0), (5, 1), (8, 2), (8, 8), (ROWS, 0), (ROWS, 3)]
)
def test_rows_are_those_of_the_plain_loop(seats, halvings):
    assert_equal(in_seats(seats, halvings), plain())


def test_greedy_rows_and_rows_that_never_stop():
    assert_equal(in_seats(5, 1, sampling=GREEDY), plain(sampling=GREEDY))
    assert_equal(in_seats(5, 1, stop=NEVER), plain(stop=NEVER))


@pytest.mark.parametrize(("fsdp", "tp", "seats"), [(2, 1, 6), (2, 2, 4), (4, 1, 5)])
def test_on_a_mesh(fsdp, tp, seats):
    """Each part of the rows in seats of its own; where they do not divide, all in one queue."""
    assert_equal(in_seats(seats, 1, mesh=make_mesh(fsdp, tp)), plain())


def test_a_seat_costs_what_it_costs():
    """The caches of the loop have as many rows as there are seats, and halve."""
    lowered = rollout_in_seats.lower(
        *arguments(STOP), group=GROUP, max_new_tokens=NEW, seats=8, halvings=2
    )
    loops = [line for line in lowered.as_text().splitlines() if "stablehlo.while" in line]
    slots = IDS.shape[1] + NEW
    for seats in (8, 4, 2):
        assert any(f"tensor<{seats}x2x{slots}x16xf32>" in line for line in loops), seats
    assert not any(f"tensor<{ROWS}x2x{slots}x16xf32>" in line for line in loops)


def test_a_policy_says_how_many():
    """The sampler goes by the policy's fields; all in step where nothing is gained."""
    prompts, found = [[5, 6], [7, 8, 9], [10]], []
    ways = [
        ({}, (rollout, {})),
        ({"seats": 2}, (rollout_in_seats, {"seats": 2, "halvings": 0})),
        ({"seats": 100}, (rollout, {})),
        ({"halvings": 1}, (rollout_in_seats, {"seats": 6, "halvings": 1})),
    ]
    for fields, way in ways:
        policy = dataclasses.replace(policy_of(), **fields)
        assert writing(policy, 6) == way
        sampler = Sampler(policy, (4,))
        found.append(
            sampler.sample(
                prompts, row_keys(0, "train", 0, np.arange(6)), sampling=PLAIN._asdict(), group=2,
                max_new_tokens=9,
            )
        )  # fmt: skip
    for got in found[1:]:
        np.testing.assert_array_equal(got.ids_BT, found[0].ids_BT)
    np.testing.assert_array_equal(found[2].sample_logprob_BC, found[0].sample_logprob_BC)
