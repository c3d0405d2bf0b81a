"""Completions as a judge grades them, from 0 to 10.

    <judge>/<rubric>       mean over the N completions that have a verdict r of 10 r, r ∈ [0, 1]
    .../low, .../high      mean ± z s / √N, s with ddof 1, within 0 and 10; all of it where N < 2
    .../failed             share of the completions without a verdict: they count nowhere else
    .../failed/<kind>      by the kind of the first failure
    .../agreement          chance that a right completion has a higher grade than a wrong one
    .../entropy            mean over the replies of a model of ours, in nats: judges/judging.py
    .../over <policy>      mean of the differences to another policy's grades of the same examples,
                           where both have one; its interval likewise, within -10 and 10

z is that of 95 %. Known flaws: the normal approximation is too narrow for few examples, and has no
width where all grades are equal; it knows of the examples, and nothing of how a judge errs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from grpo.data.examples import Example
from grpo.evaluation.metrics import NO_DOMAIN, Z95
from grpo.judges.judging import Judge, Verdicts, metrics_of, verdicts

MOST = 10.0


class GradeError(RuntimeError):
    """A judge that does not answer; one line."""


def graded(
    judge: Judge,
    examples: Sequence[Example],
    completions: Sequence[str],
    *,
    batch: int,
    max_failed: float,
    check: Callable[[], None],
) -> Verdicts:
    """The verdicts on completions, `batch` at a time; an error once too many are missing."""
    parts: list[Verdicts] = []
    for first in range(0, len(completions), batch):
        check()
        rows = slice(first, first + batch)
        parts.append(verdicts(judge, examples[rows], completions[rows]))
        lost = [why for part in parts for why in part.reasons if why]
        if len(lost) > max_failed * len(completions):
            raise GradeError(
                f"{len(lost)} of {len(completions)} completions have no verdict, "
                f"max_failed={max_failed}: {Counter(lost).most_common(1)[0][0]}"
            )
    return Verdicts(
        np.concatenate([part.score_B for part in parts]),
        [reason for part in parts for reason in part.reasons],
        [keys for part in parts for keys in part.keys],
        [reply for part in parts for reply in part.replies],
    )


def grade_metrics(name: str, found: Verdicts, right_E: np.ndarray) -> dict[str, float]:
    """What a judge says of a policy's completions, some of which are right."""
    about = metrics_of(found, right_E)
    del about["cached"]  # a run that was stopped has more of them
    report = interval(name, found.score_B, least=0.0)
    return report | {f"{name}/{metric}": value for metric, value in about.items()}


def interval(name: str, score_E: np.ndarray, *, least: float) -> dict[str, float]:
    """The mean of what is there, out of 10, and its interval; nothing of nothing."""
    grade_N = MOST * score_E[~np.isnan(score_E)]
    if not grade_N.size:
        return {}
    mean, reach = float(grade_N.mean()), 2 * MOST
    if grade_N.size > 1:
        reach = Z95 * float(grade_N.std(ddof=1)) / grade_N.size**0.5
    low, high = max(least, mean - reach), min(MOST, mean + reach)
    return {name: mean, f"{name}/low": low, f"{name}/high": high}


def over(name: str, score_E: np.ndarray, others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How much higher the grades are than others' of the same examples."""
    report = {}
    for policy, other_E in others.items():
        report |= interval(f"{name}/over {policy}", score_E - other_E, least=-MOST)
    return report


def grades_by_domain(
    rows: Sequence[Mapping[str, Any]], scores: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """The grades by domain, of rows that may say one; nothing where none does."""
    domains = [row.get("domain", NO_DOMAIN) for row in rows]
    found: dict[str, dict[str, float]] = {}
    for domain in sorted({*domains} if {*domains} - {NO_DOMAIN} else ()):
        is_in_E = np.array([one == domain for one in domains])
        found[domain] = {"problems": int(is_in_E.sum())}
        for name, score_E in scores.items():
            found[domain] |= interval(name, score_E[is_in_E], least=0.0)
    return found


def grade_rows(examples: Iterable[Example], name: str, found: Verdicts) -> list[dict[str, Any]]:
    """A row for each completion: its grade or why there is none, and where the replies are."""
    rows = zip(examples, found.score_B.tolist(), found.reasons, found.keys, strict=True)
    return [
        {
            "id": example["id"], "by": name, "grade": None if reason else MOST * score,
            "reason": reason, "keys": keys,
        }
        for example, score, reason, keys in rows
    ]  # fmt: skip
