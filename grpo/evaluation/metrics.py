"""How many completions are right, read in four ways, and how they look.

    accuracy/strict    the whole completion has the form, and its answer is the gold's number
    accuracy/lenient   the answer wherever it may be
    accuracy/demo      float(first number after <answer>) = float(gold), as the Tunix demo counts
    accuracy/partial   of the demo: within 10 % of the gold
    format/strict      completions that have the form; format/demo: the demo's pattern
    format/tags        how many of the four tags a completion has exactly once, of 0 to 4
    length/mean        tokens; truncated: completions that nothing ended; problems: how many

and of n samples per problem, the mean over problems, right by the lenient reading:

    mean@n             the share of all samples that is right, which estimates pass@1
    pass@k, maj@k      grpo/algorithms/accuracy_estimates.py; equal numbers are one vote
    maj@k/strings      the same vote over spellings (votes.py), ties by the first sample

.../low and .../high: 95 %, by Wilson, over problems. maj@k is left out where there are too many
subsets of k to take the mean over all of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from grpo.algorithms.accuracy_estimates import SUBSETS, maj_at_k, mean_interval, pass_at_k
from grpo.evaluation.votes import number_votes, string_votes
from grpo.rewards.demo import formatted_answer
from grpo.rewards.extract import TAGS, strict

Z95 = 1.959963984540054
NO_DOMAIN = "(none)"  # of examples without one, beside others that have one


def with_interval(name: str, value_P: np.ndarray, *, most: int) -> dict[str, float]:
    """A mean over problems and its interval, of so many samples."""
    low, high = mean_interval(value_P, most=most, z=Z95)
    return {name: float(np.mean(value_P)), f"{name}/low": low, f"{name}/high": high}


def accuracy_metrics(
    right_E: Mapping[str, np.ndarray],
    texts: Sequence[str],
    length_E: np.ndarray,
    truncated_E: np.ndarray,
    *,
    samples: int,
) -> dict[str, float]:
    """The metrics of so many completions per problem, those of a problem one after the other."""
    metrics: dict[str, float] = {}
    for name, yes_E in right_E.items():
        share_P = yes_E.reshape(-1, samples).mean(axis=1)
        metrics |= with_interval(f"accuracy/{name}", share_P, most=yes_E.size)
    return metrics | {
        "format/strict": float(np.mean([strict(text) is not None for text in texts])),
        "format/demo": float(np.mean([formatted_answer(text) is not None for text in texts])),
        "format/tags": float(np.mean([sum(text.count(t) == 1 for t in TAGS) for text in texts])),
        "length/mean": float(length_E.mean()),
        "truncated": float(truncated_E.mean()),
        "problems": len(texts) // samples,
    }


def sample_metrics(
    texts: Sequence[Sequence[str]],
    golds: Sequence[str],
    right_PG: np.ndarray,
    logprob_PG: np.ndarray,
    ks: Sequence[int],
) -> dict[str, float]:
    """mean@n, pass@k and maj@k; `texts` are the G samples of each problem."""
    most, samples = right_PG.size, right_PG.shape[1]
    metrics = with_interval(f"mean@{samples}", right_PG.mean(axis=1), most=most)
    votes_PG = [number_votes(of_one, row) for of_one, row in zip(texts, right_PG, strict=True)]
    spelt_PG = [string_votes(of_one, gold) for of_one, gold in zip(texts, golds, strict=True)]
    for k in ks:
        passed_P = np.array([pass_at_k(row, k) for row in right_PG])
        metrics |= with_interval(f"pass@{k}", passed_P, most=most)
        if math.comb(samples, k) > SUBSETS:
            continue  # there is no exact vote of so many subsets
        problems = zip(votes_PG, logprob_PG, right_PG, strict=True)
        majority_P = np.array([maj_at_k(*problem, k=k) for problem in problems])
        metrics |= with_interval(f"maj@{k}", majority_P, most=most)
        # Equal log-probs: a tie goes to the first sample, the mean over their orders.
        spelt = [maj_at_k(vote_G, np.zeros(samples), right_G, k) for vote_G, right_G in spelt_PG]
        metrics[f"maj@{k}/strings"] = float(np.mean(spelt))
    return metrics


def by_domain(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy by domain, of rows that may say one; nothing where none does."""
    domains: dict[str, dict[str, list[Mapping[str, bool]]]] = {}
    for row in rows:
        problems = domains.setdefault(row.get("domain", NO_DOMAIN), {})
        problems.setdefault(row["id"], []).append(row["right"])
    if domains.keys() <= {NO_DOMAIN}:
        return {}
    return {domain: of_problems([*domains[domain].values()]) for domain in sorted(domains)}


def of_problems(problems: Sequence[Sequence[Mapping[str, bool]]]) -> dict[str, float]:
    """How many problems there are, and the accuracies of their completions."""
    found: dict[str, float] = {"problems": len(problems)}
    most = sum(map(len, problems))
    for name in problems[0][0]:
        share_P = np.array([np.mean([right[name] for right in one]) for one in problems])
        found |= with_interval(f"accuracy/{name}", share_P, most=most)
    return found
