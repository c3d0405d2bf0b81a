"""What a reward model knows: of held-out pairs, and of the completions of held-out prompts.

    accuracy                how often the chosen completion has the higher reward
    accuracy/<kind>         the same of the pairs of a kind
    accuracy/same length    of the pairs whose lengths differ by `similar` of the longer at most
    reward/mean, /std       of the completions of these pairs, under the head of their kind
    any of N, best of N     right answers among all N completions of a prompt, and among those with
                            the highest reward of their prompt (the mean over heads)
    lift                    best - any, the mean over prompts

.../low and .../high: 95 %, by Wilson; of the lift by the normal approximation over prompts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from grpo.algorithms.accuracy_estimates import wilson
from grpo.data.pairing import Tokens
from grpo.evaluation.metrics import Z95

Row = tuple[list[int], list[int]]  # the tokens of a prompt, and of a completion
Read = Callable[[Sequence[Row]], np.ndarray]  # reward_BH of rows


class Pair(NamedTuple):
    """A preference: its tokens, the head it is of, what is wrong with the rejected one."""

    tokens: Tokens
    head: int
    kind: str | None
    is_held_out: bool


class Group(NamedTuple):
    """The completions of a prompt, and which are right."""

    rows: list[Row]
    right: list[bool]


def pair_accuracy(read: Read, pairs: Sequence[Pair], *, similar: float) -> dict[str, float]:
    """How often the chosen completion has the higher reward, of all pairs and of some."""
    texts = [(one.tokens.chosen, one.tokens.rejected) for one in pairs]
    rows = [
        (one.tokens.prompt, text) for one, two in zip(pairs, texts, strict=True) for text in two
    ]
    reward_P2H = read(rows).reshape(len(pairs), 2, -1)
    head_P = np.array([pair.head for pair in pairs])
    reward_P2 = np.take_along_axis(reward_P2H, head_P[:, None, None], axis=2)[..., 0]
    right_P = reward_P2[:, 0] > reward_P2[:, 1]
    length_P2 = np.array([[len(chosen), len(rejected)] for chosen, rejected in texts])
    apart_P = np.abs(length_P2[:, 0] - length_P2[:, 1]) / length_P2.max(axis=1)
    about = {"reward/mean": float(reward_P2.mean()), "reward/std": float(reward_P2.std())}
    found = (
        about
        | share("accuracy", right_P)
        | share("accuracy/same length", right_P[apart_P <= similar])
    )
    kind_P = np.array([pair.kind or "" for pair in pairs])
    for kind in sorted({*kind_P} - {""}):
        found |= share(f"accuracy/{kind}", right_P[kind_P == kind])
    return found


def best_of(read: Read, groups: Sequence[Group]) -> dict[str, float]:
    """Right answers by the highest reward of a prompt's completions, beside any of them."""
    if not groups:
        return {}
    reward_B = read([row for group in groups for row in group.rows]).mean(axis=1)
    best, any_, first = [], [], 0
    for group in groups:
        reward_G = reward_B[first : first + len(group.rows)]
        first += len(group.rows)
        best.append(group.right[int(np.argmax(reward_G))])
        any_.append(float(np.mean(group.right)))
    gain_P = np.array(best, float) - np.array(any_)
    lift, half = float(gain_P.mean()), Z95 * float(gain_P.std()) / len(gain_P) ** 0.5
    return {
        **share("best of N", np.array(best)),
        "any of N": float(np.mean(any_)),
        "N": max(len(group.rows) for group in groups),
        "lift": lift, "lift/low": lift - half, "lift/high": lift + half,
    }  # fmt: skip


def share(name: str, right: np.ndarray) -> dict[str, float]:
    """The share of what is right, its interval, and of how many; nothing of nothing."""
    if not right.size:
        return {}
    low, high = wilson(int(right.sum()), right.size, z=Z95)
    about = {"": float(right.mean()), "/low": low, "/high": high, "/count": right.size}
    return {f"{name}{end}": value for end, value in about.items()}
