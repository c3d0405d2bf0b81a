"""What is asked of a model, and what comes back: a text, a score, or the reason why there is none.

    Question   a prompt, and its key: sha256 of (who is asked: model and settings; prompt)
    Reply      text and score, or a reason; a failure is never a number
    Ask        questions -> as many replies, in the same order

Whatever answers is an Ask: an endpoint (`http`), a recording of one (`replay`), a model in this
process. The same question to the same model with the same settings has the same key. Where a model
is reached is not part of it: a server may move, and a replay needs none.

A reason begins with its kind and a colon, as in "http_429: Too Many Requests".
"""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Question(NamedTuple):
    """A prompt, and what it is known by."""

    prompt: str
    key: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What was said, a score of it or both; or else the reason why nothing is."""

    text: str | None = None
    reason: str | None = None
    score: float | None = None
    attempts: int  # requests that were sent, when it was asked
    is_cached: bool = False  # not asked now: out of a recording, or another one's of the batch

    def __post_init__(self):
        if (self.text is None and self.score is None) != (self.reason is not None):
            raise ValueError("a reply is either a text or a score, or a reason why it is neither")
        if self.reason == "":
            raise ValueError("the reason of a reply that failed is empty")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError("the score of a reply is not finite: a failure is a reason instead")


Ask = Callable[[Sequence[Question]], list[Reply]]


def question(prompt: str, asked: Mapping[str, Any]) -> Question:
    """The question that a prompt is to who is asked: a model's name and settings."""
    whole = json.dumps({"asked": asked, "prompt": prompt}, sort_keys=True, allow_nan=False)
    return Question(prompt, hashlib.sha256(whole.encode("ascii")).hexdigest())


def kind_of(reason: str) -> str:
    """What kind of failure a reason tells of."""
    return reason.partition(":")[0]


def metrics_of(replies: Sequence[Reply]) -> dict[str, float]:
    """Counts of what was asked now, of requests, of failures by kind, and of cached replies."""
    now = [reply for reply in replies if not reply.is_cached]
    reasons = [reply.reason for reply in replies if reply.reason is not None]
    kinds = Counter(map(kind_of, reasons))
    return {
        "questions": len(replies),
        "cached": len(replies) - len(now),
        "asked": sum(reply.attempts > 0 for reply in now),
        "retried": sum(max(reply.attempts - 1, 0) for reply in now),
        "answered": len(replies) - len(reasons),
        "failed": len(reasons),
        **{f"failed/{kind}": kinds[kind] for kind in sorted(kinds)},
    }
