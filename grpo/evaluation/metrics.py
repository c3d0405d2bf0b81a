"""How many completions are right, read in three ways, and how they look.

    accuracy/strict    the whole completion has the form, and its answer is the gold's number
    accuracy/lenient   the answer wherever it may be
    accuracy/demo      float(first number after <answer>) = float(gold), as the Tunix demo counts
    accuracy/partial   of the demo: within 10 % of the gold
    .../low, .../high  Wilson interval of 95 %
    format/strict, format/demo, length/mean, truncated

and of several samples per problem pass@k and maj@k (grpo/algorithms/accuracy_estimates.py), where
two votes are the same if they are the same number.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from grpo.algorithms.accuracy_estimates import NO_ANSWER, SUBSETS, maj_at_k, pass_at_k, wilson
from grpo.rewards.demo import formatted_answer
from grpo.rewards.extract import lenient, strict
from grpo.rewards.numbers import parse_number

Z95 = 1.959963984540054


def accuracy_metrics(
    right_E: Mapping[str, np.ndarray],
    texts: Sequence[str],
    length_E: np.ndarray,
    truncated_E: np.ndarray,
) -> dict[str, float]:
    """The metrics of one completion per problem."""
    metrics: dict[str, float] = {}
    for name, yes_E in right_E.items():
        low, high = wilson(int(yes_E.sum()), yes_E.size, z=Z95)
        metrics[f"accuracy/{name}"] = float(yes_E.mean())
        metrics |= {f"accuracy/{name}/low": low, f"accuracy/{name}/high": high}
    return metrics | {
        "format/strict": float(np.mean([strict(text) is not None for text in texts])),
        "format/demo": float(np.mean([formatted_answer(text) is not None for text in texts])),
        "length/mean": float(length_E.mean()),
        "truncated": float(truncated_E.mean()),
        "problems": len(texts),
    }


def sample_metrics(
    texts: Sequence[Sequence[str]],
    right_PG: np.ndarray,
    logprob_PG: np.ndarray,
    ks: Sequence[int],
) -> dict[str, float]:
    """pass@k and maj@k, the mean over problems; `texts` are the G samples of each."""
    metrics: dict[str, float] = {}
    votes_PG = [vote_ids(samples, row) for samples, row in zip(texts, right_PG, strict=True)]
    for k in ks:
        metrics[f"pass@{k}"] = float(np.mean([pass_at_k(row, k) for row in right_PG]))
        if math.comb(right_PG.shape[1], k) > SUBSETS:
            continue  # there is no exact vote of so many subsets
        problems = zip(votes_PG, logprob_PG, right_PG, strict=True)
        metrics[f"maj@{k}"] = float(np.mean([maj_at_k(*problem, k=k) for problem in problems]))
    return metrics


def vote_ids(samples: Sequence[str], right_G: np.ndarray) -> np.ndarray:
    """A number for each answer, the same one for equal numbers; NO_ANSWER without one."""
    known: dict[tuple[Fraction | str, bool], int] = {}
    votes = []
    for text, is_right in zip(samples, right_G, strict=True):
        answer = lenient(text)
        if answer is None:
            votes.append(NO_ANSWER)
            continue
        number = parse_number(answer)
        # 50% and 0.5 are both the gold's 50%, but not each other: right answers vote together.
        value = "right" if is_right else answer.strip() if number is None else number
        votes.append(known.setdefault((value, bool(is_right)), len(known)))
    return np.array(votes)
