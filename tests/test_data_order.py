"""The order of examples: permutations, resuming anywhere, and numbers that must never change."""

import numpy as np
import pytest

from grpo.data.order import example_at, permutation


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_every_epoch_is_a_permutation(size, seed):
    for epoch in range(4):
        found = [example_at(seed, epoch * size + i, size) for i in range(size)]
        assert sorted(found) == list(range(size))


def test_epochs_and_seeds_differ():
    orders = [tuple(permutation(seed, epoch, 50)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25  # (0, 1) and (1, 0) too


def test_these_numbers_never_change():
    assert [example_at(42, i, 10) for i in range(20)] == [
        5,
        0,
        6,
        4,
        2,
        7,
        3,
        1,
        8,
        9,
        3,
        1,
        2,
        9,
        5,
        0,
        6,
        8,
        7,
        4,
    ]
    assert [example_at(0, i, 7473) for i in (0, 1, 7472, 7473, 10**9)] == [
        759,
        2603,
        2025,
        1618,
        1321,
    ]


def test_a_run_resumes_anywhere():
    whole = [example_at(7, i, 13) for i in range(200)]
    for step in (19, 0, 11, 3):
        permutation.cache_clear()
        batch = range(step * 10, step * 10 + 10)
        assert [example_at(7, i, 13) for i in batch] == whole[batch.start : batch.stop]


def test_every_place_is_as_likely():
    first = np.array([example_at(seed, 0, 5) for seed in range(2000)])
    assert np.abs(np.bincount(first, minlength=5) / 2000 - 0.2).max() < 0.03


def test_the_shared_order_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 0, 5)[0] = 1


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 5)])
def test_no_examples(index, size):
    with pytest.raises(ValueError, match=f"index={index}, size={size}"):
        example_at(0, index, size)


def test_indices_are_plain_integers():
    assert {type(example_at(0, i, 5)) for i in range(3)} == {int}
