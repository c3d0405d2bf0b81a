"""Groups between sampling and update: which are kept, how an iteration is cut into minibatches."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.groups import Groups, has_spread
from grpo.algorithms.groups import groups_of as by_name
from grpo.algorithms.losses import policy_loss
from grpo.algorithms.presets import GRPO, PRESETS
from grpo.rollout.collect import choose
from grpo.training.batches import minibatch
from tests.test_losses import VARIANTS

G, C = 2, 3
FULL = [[1, 1, 1], [1, 1, 0]]  # the masks of each group's two completions


def groups_of(advantages, first=0, **changes) -> Groups:
    """Groups of two; every row's tokens are its number, counted from `first`."""
    rows = len(advantages)
    number = np.arange(first, first + rows)
    got = {
        "ids_BT": np.repeat(number[:, None], 5, 1),
        "mask_BT": np.ones((rows, 5), np.int32),
        "completion_mask_BC": np.array(FULL * (rows // G), bool),
        "truncated_B": number % 2 == 0,
        "advantage_B": np.array(advantages, np.float32),
        "spread_B": np.repeat(np.any(np.reshape(advantages, (-1, G)) != 0, axis=1), G),
        "sample_logprob_BC": -np.repeat(number[:, None] + 1.0, C, 1),
    }
    return Groups(**{**got, **changes})


def test_has_spread():
    assert has_spread(groups_of([0, 0, 1, -1, 0, -1e-9]), G).tolist() == [False, True, True]


def test_drop_empties_the_groups_without_spread():
    """Groups 1 and 2 have one: they come first, in their order; the others lose their tokens."""
    chosen, row_B = choose([groups_of([0, 0, 1, -1, 2, -2, 0, 0])], G)
    assert row_B.tolist() == [2, 3, 4, 5, 0, 1, 6, 7]
    assert chosen.ids_BT[:, 0].tolist() == [2, 3, 4, 5, 0, 1, 6, 7]
    assert chosen.completion_mask_BC.astype(int).tolist() == [*FULL, *FULL, *[[0, 0, 0]] * 4]
    assert chosen.advantage_B.tolist() == [1, -1, 2, -2, 0, 0, 0, 0]
    assert chosen.truncated_B.tolist() == [True, False] * 4
    assert chosen.sample_logprob_BC[:, 1].tolist() == [-3, -4, -5, -6, -1, -2, -7, -8]
    assert chosen.old_logprob_BC is None and chosen.ref_logprob_BC is None


def test_refill_takes_from_later_rounds_what_the_first_lacks():
    rounds = [
        groups_of([0, 0, 1, -1, 0, 0]),
        groups_of([0, 0, 0, 0, 3, -3], first=6),
        groups_of([4, -4, 5, -5, 6, -6], first=12),
    ]
    chosen, row_B = choose(rounds, G)
    assert row_B.tolist() == [2, 3, 10, 11, 12, 13]  # three groups, in order
    assert chosen.ids_BT[:, 0].tolist() == row_B.tolist()
    assert chosen.completion_mask_BC.astype(int).tolist() == FULL * 3
    assert chosen.advantage_B.tolist() == [1, -1, 3, -3, 4, -4]
    short, _ = choose(rounds[:2], G)
    assert short.ids_BT[:, 0].tolist() == [2, 3, 10, 11, 0, 1]  # one place stays empty
    assert short.completion_mask_BC.any(axis=1).tolist() == [True] * 4 + [False] * 2


def test_nothing_has_a_spread():
    chosen, _ = choose([groups_of([0, 0, 0, 0])], G)
    assert chosen.ids_BT.shape == (4, 5) and not chosen.completion_mask_BC.any()


def test_stored_and_read_again():
    more: dict[str, Any]
    for more in ({}, {"old_logprob_BC": np.array([[-1.5, 2, 3]] * 4, np.float32)}):
        groups, file = groups_of([1, -1, 0, 0], **more), io.BytesIO()
        np.savez(file, **groups.stored())
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            back = by_name({name: arrays[name] for name in arrays.files})
        for name, x, y in zip(Groups._fields, back, groups, strict=True):
            assert (x is None) == (y is None), name
            if x is not None:
                np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def test_arrays_of_the_device_are_stored_on_the_host():
    stored = groups_of([1, -1], advantage_B=jnp.float32([1, -1])).stored()
    assert type(stored["advantage_B"]) is np.ndarray and "ref_logprob_BC" not in stored


PROMPTS = 6


def cut(update, minibatches, iteration=0, epochs=2, seed=5, objective=GRPO, groups=None):
    """Update number `update` of an iteration over six groups."""
    groups = groups or groups_of([1, -1] * PROMPTS)
    return minibatch(
        groups, update, group=G, minibatches=minibatches, order=(seed, iteration * epochs),
        limit=4, objective=objective,
    )  # fmt: skip


def rows_of(batch) -> list[int]:
    return np.asarray(batch.ids_BT)[:, 0].tolist()


@pytest.mark.parametrize("minibatches", [1, 2, 3, 6])
def test_every_group_once_in_an_epoch_and_whole(minibatches):
    seen = []
    for epoch in range(3):
        updates = range(epoch * minibatches, (epoch + 1) * minibatches)
        parts = [rows_of(cut(update, minibatches)) for update in updates]
        assert [len(part) for part in parts] == [PROMPTS * G // minibatches] * minibatches
        rows = [row for part in parts for row in part]
        assert sorted(rows) == [*range(PROMPTS * G)]
        assert all(b == a + 1 and a % G == 0 for a, b in zip(rows[::2], rows[1::2], strict=True))
        seen.append(tuple(rows))
    if minibatches == 1:
        assert set(seen) == {tuple(range(PROMPTS * G))}  # as sampled
    else:
        assert len(set(seen)) == 3


def test_iterations_and_seeds_have_their_own_cuts():
    cuts = {
        (seed, iteration, epoch): tuple(
            rows_of(cut(epoch * 2, 2, iteration=iteration, seed=seed))
            + rows_of(cut(epoch * 2 + 1, 2, iteration=iteration, seed=seed))
        )
        for seed in (5, 6)
        for iteration in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(cuts.values())) == len(cuts)


def test_everything_of_a_row_goes_with_it():
    logprob = np.arange(36.0).reshape(12, 3)
    groups = groups_of(np.arange(12), old_logprob_BC=logprob, ref_logprob_BC=logprob + 100)
    batch = cut(1, 3, groups=groups)
    rows, got = rows_of(batch), batch
    assert rows != sorted(rows) or rows[0] != 4
    np.testing.assert_array_equal(got.advantage_B, rows)
    np.testing.assert_array_equal(got.old_logprob_BC, logprob[rows])
    np.testing.assert_array_equal(got.ref_logprob_BC, logprob[rows] + 100)
    np.testing.assert_array_equal(got.sample_logprob_BC[:, 0], -np.array(rows) - 1)
    np.testing.assert_array_equal(got.completion_mask_BC, np.array(FULL * 2, bool))


def test_a_minibatch_is_weighed_by_itself():
    """Two groups of 3 + 2 tokens: every token 1/10 of the metrics; in the loss rows count alike."""
    got = cut(0, 3)
    np.testing.assert_allclose(got.share_BC, np.array(FULL * 2) / 10, rtol=1e-6)
    np.testing.assert_allclose(
        got.weight_BC, np.array([[1 / 12] * 3, [1 / 8, 1 / 8, 0]] * 2), rtol=1e-6
    )
    limited = cut(0, 3, objective=PRESETS["dr_grpo"])  # 4 rows, 4 tokens at most
    np.testing.assert_allclose(limited.weight_BC, np.array(FULL * 2) / 16, rtol=1e-6)


# An aggregation, ratio, surrogate, correction of each kind: all of them compile for long.
MODES = (
    "grpo", "dapo", "dr_grpo", "gspo", "rloo", "gmpo", "cispo", "entropy", "mask_truncated",
    "off_policy", "cap_sequence",
)  # fmt: skip


def loss_of(objective, logprob_BC, groups):
    """((loss, metrics), gradient); the entropy is anything that hangs on the log-probs."""

    def loss(logprob_BC):
        return policy_loss(logprob_BC, jnp.abs(logprob_BC), groups, objective=objective)

    return jax.value_and_grad(loss, has_aux=True)(logprob_BC)


@jax.jit
def losses(logprob_BC, batches):
    """By mode, all in one program."""
    return {name: loss_of(VARIANTS[name], logprob_BC, groups) for name, groups in batches.items()}


def losses_of(groups: Groups, logprob: np.ndarray):
    """By mode: loss, metrics and gradient of a batch."""
    batches = {
        name: minibatch(
            groups, 0, group=G, minibatches=1, order=(0, 0), limit=4, objective=objective
        )
        for name, objective in VARIANTS.items()
        if name in MODES
    }
    return losses(logprob, batches)


def test_an_emptied_group_is_as_if_it_were_not_there():
    """Neither loss, metrics nor gradient know of it."""
    random = np.random.RandomState(0)

    def draw(rows):
        return np.asarray(-1.5 + random.standard_normal((rows, C)) * 0.4, np.float32)

    names = ("sample_logprob_BC", "old_logprob_BC", "ref_logprob_BC")
    got: dict[str, Any] = {name: draw(8) for name in names}
    groups = groups_of([0, 0, 1, -1, 0, 0, 0.4, -2], **got)
    (chosen, _), logprob = choose([groups], G), draw(8)
    emptied = losses_of(chosen, logprob)
    without = losses_of(chosen.rows(np.arange(4)), logprob[:4])
    for name in MODES:
        (loss, metrics), grad = emptied[name]
        (loss_4, metrics_4), grad_4 = without[name]
        np.testing.assert_allclose(loss, loss_4, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(grad[:4], grad_4, rtol=1e-6, atol=1e-9, err_msg=name)
        assert not np.any(grad[4:]) and np.any(grad_4), name
        for key, value in metrics_4.flat().items():
            np.testing.assert_allclose(metrics.flat()[key], value, rtol=1e-6, err_msg=key)
