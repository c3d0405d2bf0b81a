"""Rows of supervised examples: every id, mask and weight by hand; nothing leaks inside a row."""

import functools

import jax
import numpy as np
import pytest

from grpo.data.packing import Rows, one_each, packed
from grpo.data.templates import TEMPLATES, prompt_ids, target_ids
from grpo.training.logprobs import Logprobs, make_supervised_loss
from models.gemma import Gemma
from tests import tiny_run
from tests.helpers import SHALLOW, shallow_params, tiny_ids

A = ([2, 5], [7, 1])
B = ([2, 6, 6], [8, 1])
C = ([2], [9, 1])
D = ([2, 4], [1])
SCORER = Logprobs(module=Gemma(SHALLOW), temperature=1.0, with_entropy=False)
VARIABLES = {"params": shallow_params()}


def assert_rows(rows: Rows, ids, mask, weight) -> None:
    np.testing.assert_array_equal(rows.ids_BT, ids)
    np.testing.assert_array_equal(rows.mask_BT, mask)
    np.testing.assert_allclose(rows.weight_BC, weight, rtol=1e-6)
    assert rows.ids_BT.dtype == rows.mask_BT.dtype == np.int32
    assert rows.weight_BC.dtype == np.float32


def test_one_each_by_hand():
    assert_rows(
        one_each([A, D, B], buckets=[2, 4, 8], max_target=3),
        [[0, 0, 2, 5, 7, 1, 0], [0, 0, 2, 4, 1, 0, 0], [0, 2, 6, 6, 8, 1, 0]],
        [[0, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0]],
        np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]]) / 5,
    )


def test_packed_by_hand():
    """C goes back into the first row; D fits nowhere, ends the batch and is not taken."""
    rows, taken = packed([A, B, C, D], rows=2, length=7)
    assert taken == 3
    assert_rows(
        rows,
        [[2, 5, 7, 1, 2, 9, 1], [2, 6, 6, 8, 1, 0, 0]],
        [[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0]],
        np.array([[0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0]]) / 6,
    )


def test_what_would_fit_behind_one_that_does_not_is_left_to_the_next_batch():
    """A does not; C would. The order is kept, so that a number says how far."""
    rows, taken = packed([B, A, C], rows=1, length=8)
    assert taken == 1 and rows.mask_BT.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


def test_only_what_is_taken_is_read_of_a_stream_but_for_one():
    stream = iter([A, B, C, D, A, B])
    assert packed(stream, rows=2, length=7)[1] == 3
    assert next(stream) == A


def test_an_example_longer_than_a_row_is_an_error():
    """It would fit into no batch ever, and be asked for again and again."""
    for pairs in ([B], [D, B]):
        with pytest.raises(ValueError, match="5 tokens, a row 4"):
            packed(pairs, rows=3, length=4)


def test_batches_follow_each_other_without_gap_or_repetition():
    random = np.random.RandomState(0)
    pairs = [
        (random.randint(3, 90, random.randint(1, 9)).tolist(), random.randint(3, 90, 2).tolist())
        for _ in range(60)
    ]
    done, found = 0, []
    while done < len(pairs):
        rows, taken = packed(pairs[done:], rows=3, length=20)
        got = [
            ids[mask == n].tolist()
            for ids, mask in zip(rows.ids_BT, rows.mask_BT, strict=True)
            for n in range(1, mask.max() + 1)
        ]
        wanted = [[*prompt, *target] for prompt, target in pairs[done : done + taken]]
        assert sorted(got) == sorted(wanted) and taken >= 1
        assert rows.weight_BC.sum() == pytest.approx(1)
        found, done = found + got, done + taken
    assert len(found) == 60


ROWS, LENGTH = 5, 32  # of all that is computed: two programs


@functools.cache
def gradient():
    """The supervised loss and its gradient, by the parameters."""
    loss = make_supervised_loss(SCORER)
    return jax.jit(jax.value_and_grad(lambda params, rows: loss(params, None, rows)[0]))


@functools.cache
def scores():
    """The log-probs of all tokens but the first of every row."""
    return jax.jit(lambda rows: SCORER(VARIABLES, rows.ids_BT, rows.mask_BT, LENGTH - 1)[0])


def in_one_row_each(pairs) -> Rows:
    """The same as `one_each`, with weights for all tokens but the first and rows of nothing."""
    rows = one_each(pairs, [9], LENGTH - 9)
    more = ROWS - len(pairs)
    return Rows(
        np.pad(rows.ids_BT, ((0, more), (0, 0))),
        np.pad(rows.mask_BT, ((0, more), (0, 0))),
        np.pad(rows.weight_BC, ((0, more), (8, 0))),
    )


def pairs_of(prompts, targets, seed=0):
    ids = tiny_ids(1, sum(prompts) + sum(targets), seed)[0].tolist()
    pairs = []
    for prompt, target in zip(prompts, targets, strict=True):
        pairs.append((ids[:prompt], ids[prompt : prompt + target]))
        ids = ids[prompt + target :]
    return pairs


def test_packed_examples_learn_what_they_learn_alone():
    """Loss and gradient; examples are longer than the window, and rows are not full."""
    pairs = pairs_of([5, 9, 3, 4, 6], [4, 3, 7, 2, 5])
    rows, taken = packed(pairs, ROWS, LENGTH)
    assert taken == 5 and rows.mask_BT.max(axis=1).tolist() == [3, 2, 0, 0, 0]
    loss, grads = gradient()(shallow_params(), rows)
    alone, alone_grads = gradient()(shallow_params(), in_one_row_each(pairs))
    np.testing.assert_allclose(loss, alone, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(alone_grads), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max() and np.abs(b).max() > 1e-5


def test_the_loss_is_the_mean_over_all_target_tokens():
    """Not the mean of the examples' means: 4 + 2 tokens, from the log-probs of each alone."""
    pairs = pairs_of([5, 3], [4, 2], seed=1)
    got = np.asarray(scores()(in_one_row_each(pairs)))
    nll = -np.array([*got[0, 8:12], *got[1, 8:10]])  # targets begin in column 9
    loss, _ = gradient()(shallow_params(), packed(pairs, ROWS, LENGTH)[0])
    assert loss == pytest.approx(nll.mean(), rel=1e-5) and np.ptp(nll) > 0.1


def test_no_example_sees_another_of_its_row():
    rows, _ = packed(pairs_of([5, 4, 3], [4, 3, 6], seed=2), ROWS, LENGTH)
    before, weighs = np.asarray(scores()(rows))[0], rows.weight_BC[0] > 0
    for n in (1, 2, 3):
        own = rows.mask_BT == n
        other = np.where(own, (rows.ids_BT + 7) % 90 + 3, rows.ids_BT)
        after = np.asarray(scores()(rows._replace(ids_BT=other)))[0]
        own = own[0, 1:]
        np.testing.assert_array_equal(after[weighs & ~own], before[weighs & ~own])
        assert (after[weighs & own] != before[weighs & own]).all()


@pytest.mark.parametrize("template", ["plain", "s1_kaggle"])
def test_one_bos_and_one_trained_end_for_each_example(template):
    tokenizer, template = tiny_run.tokenizer(), TEMPLATES[template]
    pairs = [
        (prompt_ids(tokenizer, e, template), target_ids(tokenizer, e, template))
        for e in tiny_run.EXAMPLES[:3]
    ]
    length = sum(len(prompt) + len(target) for prompt, target in pairs) + 2
    for rows in (
        packed(pairs, rows=1, length=length)[0],
        one_each(pairs, [max(len(p) for p, _ in pairs)], max(len(t) for _, t in pairs)),
    ):
        weight_BT = np.zeros(rows.ids_BT.shape)
        weight_BT[:, -rows.weight_BC.shape[1] :] = rows.weight_BC
        assert (rows.ids_BT == tokenizer.bos_id).sum() == 3
        assert not weight_BT[rows.ids_BT == tokenizer.bos_id].any()
        ends = rows.ids_BT == tokenizer.end_of_turn_id
        assert ends.sum() == 6  # the user's turn and the model's
        assert (weight_BT[ends] > 0).tolist() == [False, True] * 3
        targets = [token for _, target in pairs for token in target]
        np.testing.assert_array_equal(rows.ids_BT[weight_BT > 0], targets)
