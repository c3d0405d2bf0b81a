"""The arithmetic of benchmarks/real_weights_tables.py, by hand; the tables need models."""

import numpy as np
import pytest

from benchmarks.real_weights_tables import ROWS, compare, parting


def test_two_sides_of_a_text():
    """ln 2 or ln 4 for every next token: an even choice of two, then of four."""
    mine_TV = np.zeros((3, 2), np.float32)
    theirs_TV = np.array([[0, 0], [0, np.log(3)], [9, 0]], np.float32)
    told = compare(mine_TV, theirs_TV, [1, 1, 0])
    assert told["max"] == 9 and told["same"] == 2
    assert told["mean"] == pytest.approx((np.log(3) + 9) / 6)
    # The last row scores nothing: log-probs are ln 1/2 and ln 1/4, beside ln 1/2 twice.
    assert told["logprob_max"] == pytest.approx(np.log(2))
    assert told["logprob_mean"] == pytest.approx(np.log(2) / 2)
    assert told["perplexity"] == pytest.approx(8**0.5)


def test_a_text_of_several_parts():
    random = np.random.default_rng(0)
    logits_TV = random.normal(size=(2 * ROWS + 1, 5)).astype(np.float32)
    ids = random.integers(0, 5, len(logits_TV)).tolist()
    p_TV = np.exp(logits_TV, dtype=np.float64)
    p_TV /= p_TV.sum(axis=1, keepdims=True)
    score_T = np.log(p_TV[np.arange(len(ids) - 1), ids[1:]])
    told = compare(logits_TV, logits_TV, ids)
    assert (told["max"], told["same"], told["logprob_max"]) == (0, len(ids), 0)
    assert told["perplexity"] == pytest.approx(np.exp(-score_T.mean()))


def test_where_two_texts_part():
    assert parting([5, 6, 7], [5, 6, 7]) is None
    assert parting([5, 6, 7], [5, 8, 7]) == 1
    assert parting([5, 1], [6, 6, 6]) == 0
