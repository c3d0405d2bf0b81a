"""A judge: completions in, scores of [0, 1] out, or the reason why there is none.

    criteria -> prompts -> questions -> replies -> a score each -> r (rubrics.py)

A reply has a score (a model of ours, from its probabilities) or a text, which must be a word of the
scale, or an object with one; anything else has failed. A completion of which any question failed
has no score: it is never a number. What is asked twice in a batch is asked once.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.examples import Example
from grpo.judges.asking import Ask, Question, Reply, kind_of, question
from grpo.judges.prompts import PROMPTS, rating_in
from grpo.judges.rubrics import criteria_of, together


class Judge(NamedTuple):
    """Whom to ask, and what."""

    ask: Ask
    asked: Mapping[str, Any]  # who that is: a part of every key
    prompt: str
    rubric: str
    scale: str
    seed: int


class Verdicts(NamedTuple):
    """What a judge says of B completions."""

    score_B: np.ndarray  # NaN: it failed
    reasons: list[str | None]
    keys: list[list[str]]  # of the questions about each
    replies: list[Reply]  # to all questions that were put


def verdicts(judge: Judge, examples: Sequence[Example], completions: Sequence[str]) -> Verdicts:
    """The verdicts on completions."""
    questions: dict[str, Question] = {}
    keys, criteria = [], []
    for example, completion in zip(examples, completions, strict=True):
        of = criteria_of(example, judge.rubric)
        prompts = PROMPTS[judge.prompt](example, completion, of, judge.scale, judge.seed)
        put = [question(prompt, judge.asked) for prompt in prompts]
        questions |= {q.key: q for q in put}
        keys.append([q.key for q in put])
        criteria.append(of)
    replies = judge.ask([*questions.values()])
    if len(replies) != len(questions):
        raise ValueError(f"the judge gave {len(replies)} replies to {len(questions)} questions")
    by_key = dict(zip(questions, replies, strict=True))
    score_B, reasons = np.full(len(completions), np.nan), []
    for row, (own, of) in enumerate(zip(keys, criteria, strict=True)):
        rated = [rated_by(by_key[key], judge.scale) for key in own]
        reason = next((why for _, why in rated if why), None)
        reasons.append(reason)
        if reason is None:
            scores = [score for score, _ in rated]
            score_B[row] = together(of, scores) if len(scores) == len(of) else scores[0]
    return Verdicts(score_B, reasons, keys, replies)


def rated_by(reply: Reply, scale: str) -> tuple[float, str | None]:
    """The score in a reply, or NaN and why it has none."""
    if reply.reason is not None:
        return math.nan, reply.reason
    score = reply.score
    if score is None and (score := rating_in(reply.text or "", scale)) is None:
        return math.nan, f"unrated: {reply.text!r:.60} is no rating of the scale {scale!r}"
    if not 0 <= score <= 1:
        return math.nan, f"out of range: {score!r}"
    return score, None


def metrics_of(found: Verdicts, right_B: np.ndarray) -> dict[str, float]:
    """How many failed and why, how sure the judge is, and how often it agrees with the golds.

    Agreement is the chance that a right completion has a higher score than a wrong one; it is not
    there where all of them are right, or wrong. The entropy is the mean over the replies that have
    one; there is none of a server's.
    """
    valid_B = ~np.isnan(found.score_B)
    score_N, is_right_N = found.score_B[valid_B], right_B[valid_B].astype(bool)
    kinds = [kind_of(reason) for reason in found.reasons if reason]
    report = {
        "failed": 1 - float(valid_B.mean()),
        "cached": float(np.mean([reply.is_cached for reply in found.replies])),
        **{f"failed/{kind}": kinds.count(kind) / len(valid_B) for kind in sorted(set(kinds))},
    }
    if is_right_N.any() and not is_right_N.all():
        report["agreement"] = chance_of_order(score_N[is_right_N], score_N[~is_right_N])
    entropies = [h for reply in found.replies if (h := entropy_of(reply)) is not None]
    if entropies:
        report["entropy"] = float(np.mean(entropies))
    return report


def entropy_of(reply: Reply) -> float | None:
    """H = -Σ_k p_k ln p_k in nats of a model of ours over a scale's words; None without one.

    Of the probabilities in the text of its reply, renormalised: a recording has the same entropy,
    bit for bit. They have six digits, which is off by less than 1e-4 nats of nine words with most
    of the probability, and by more where the scale has little of it.
    """
    if reply.score is None or reply.text is None:
        return None
    try:
        p_K = np.array([*json.loads(reply.text).values()], float)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if p_K.ndim != 1 or not ((p_K >= 0) & (p_K <= 1)).all() or not p_K.any():
        return None
    q_K = p_K[p_K > 0] / p_K.sum()
    return max(0.0, float(-(q_K * np.log(q_K)).sum()))


def chance_of_order(better: np.ndarray, worse: np.ndarray) -> float:
    """The chance that one of the better has the higher score (AUC); 0.5: nothing is known."""
    better_N1, worse_1M = better[:, None], worse[None]
    return float(np.mean((better_N1 > worse_1M) + 0.5 * (better_N1 == worse_1M)))
