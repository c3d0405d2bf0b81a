"""Which of the pieces an update is made of, and what goes with what.

Every field is said, none has a default here: a config starts from a paper's algorithm, presets.py.
A field that would do nothing, or contradicts another, is refused; None is how a field says that it
is not in play. (A coefficient of 0 switches its term off by itself.) Which fields a ratio and a
surrogate read stands in their signatures.
"""

import dataclasses
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from grpo.algorithms.advantages import BASELINES, SCALES
from grpo.algorithms.aggregation import AGGREGATIONS
from grpo.algorithms.correction import CORRECTIONS, LEVELS
from grpo.algorithms.kl import KL
from grpo.algorithms.ratios import RATIOS
from grpo.algorithms.surrogates import SURROGATES

CHOICES = {
    "baseline": BASELINES,
    "scale": SCALES,
    "ratio": RATIOS,
    "surrogate": SURROGATES,
    "aggregation": AGGREGATIONS,
    "kl": KL,
    "kl_in": ("loss", "reward"),
}
NUMBERS = {  # more than this, at most that, and the field that says whether it is in play
    "eps": (0.0, 1.0, "scale"),
    "overlong_buffer": (0.0, 1.0, "overlong_penalty"),
    "overlong_penalty": (0.0, math.inf, "overlong_buffer"),
    "clip_low": (0.0, 1.0, "surrogate"),
    "clip_high": (0.0, math.inf, "surrogate"),
    "dual_clip": (1.0, math.inf, "surrogate"),
    "tau_positive": (0.0, math.inf, "surrogate"),
    "tau_negative": (0.0, math.inf, "surrogate"),
    "divergence_limit": (0.0, math.inf, "surrogate"),
    "correction_cap": (1.0, math.inf, "correction"),
    "off_policy_limit": (0.0, math.inf, None),
}
# Features that may be off whatever the other fields are.
MAY_BE_OFF = ("overlong_buffer", "overlong_penalty", "dual_clip", "off_policy_limit")


@functools.cache
def keywords(piece: Callable) -> frozenset[str]:
    """The fields that a piece reads: the keywords of its signature that are still to be given."""
    parameters = inspect.signature(piece).parameters.values()
    wanted = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    return frozenset(p.name for p in wanted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The options of a policy update."""

    # The advantage: advantages.py
    baseline: str
    scale: str
    eps: float | None  # added to the scale
    decoupled: bool  # each reward function normalised apart (GDPO)
    overlong_buffer: float | None  # share of the longest completion in which the penalty grows
    overlong_penalty: float | None
    mask_truncated: bool  # completions that were cut off teach nothing
    teacher_coef: float  # of each token's estimated KL to the teacher, see losses.py
    # The surrogate: ratios.py, surrogates.py
    ratio: str
    surrogate: str
    clip_low: float | None
    clip_high: float | None
    dual_clip: float | None
    tau_positive: float | None
    tau_negative: float | None
    divergence_limit: float | None
    aggregation: str  # aggregation.py
    # What holds the policy: kl.py
    kl: str
    kl_in: str  # loss or reward
    kl_coef: float
    entropy_coef: float
    # Stale or rounded probabilities: correction.py
    correction: str | None
    correction_level: str | None
    correction_cap: float | None
    off_policy_limit: float | None  # see losses.py

    def __post_init__(self):
        if problems := self.problems():
            raise ValueError("; ".join(problems))
        if self.kl == "k1" and self.kl_in == "loss" and self.kl_coef:
            warnings.warn(
                "kl='k1' with kl_in='loss' logs a KL and restrains nothing: its expected gradient "
                "is zero; use k3 or k2, or kl_in='reward'",
                stacklevel=2,
            )

    @staticmethod
    def idle(fields: Mapping[str, Any]) -> set[str]:
        """The fields that nothing would read under the choices of the others."""
        found = {"eps"} if fields["scale"] == "none" else set()
        ratio, surrogate = RATIOS.get(fields["ratio"]), SURROGATES.get(fields["surrogate"])
        if ratio is not None and surrogate is not None:
            pieces = (*RATIOS.values(), *SURROGATES.values())
            found |= (
                frozenset().union(*map(keywords, pieces)) - keywords(ratio) - keywords(surrogate)
            )
        if fields["overlong_buffer"] is None:
            found.add("overlong_penalty")
        if fields["overlong_penalty"] is None:
            found.add("overlong_buffer")
        if fields["correction"] is None:
            found |= {"correction_level", "correction_cap"}
        return found

    def read_by(self, piece: Callable) -> dict[str, Any]:
        """The fields that a ratio or a surrogate reads, as its keywords."""
        return {name: getattr(self, name) for name in keywords(piece)}

    def problems(self) -> list[str]:
        """Everything that is wrong, a line each."""
        return [
            *(
                f"{field}={getattr(self, field)!r}: expected one of {', '.join(choices)}"
                for field, choices in CHOICES.items()
                if getattr(self, field) not in choices
            ),
            *self._numbers(),
            *self._correction(),
            *self._contradictions(),
        ]

    def _numbers(self) -> list[str]:
        """Numbers that are missing, that would do nothing, or that are out of range."""
        found, unread = [], self.idle(dataclasses.asdict(self))
        for field, (low, high, choice) in NUMBERS.items():
            value = getattr(self, field)
            under = f" under {choice}={getattr(self, choice)!r}" if choice else ""
            if value is None:
                if field not in unread and field not in MAY_BE_OFF:
                    found.append(f"{field}=None: a number is needed{under}")
            elif field in unread:
                found.append(f"{field}={value} would do nothing{under}: set it to None")
            elif not low < value <= high:
                found.append(f"{field}={value}: expected more than {low}, at most {high}")
        for field in ("teacher_coef", "kl_coef", "entropy_coef"):
            value = getattr(self, field)
            if value is None or not 0 <= value < math.inf:
                found.append(f"{field}={value}: expected a number from 0 on")
        return found

    def _correction(self) -> list[str]:
        """The kind of the sampler correction and its level."""
        kind, level, found = self.correction, self.correction_level, []
        if kind is not None and kind not in CORRECTIONS:
            found.append(f"correction={kind!r}: expected None or {', '.join(CORRECTIONS)}")
        if kind is None and level is not None:
            found.append(f"correction_level={level!r}: expected None without a correction")
        if kind is not None and level not in LEVELS:
            found.append(f"correction_level={level!r}: expected one of {', '.join(LEVELS)}")
        return found

    def _contradictions(self) -> list[str]:
        """Pairs of fields that exclude each other."""
        in_reward = self.kl_in == "reward" and bool(self.kl_coef)
        is_overlong = self.overlong_buffer is not None
        pairs = (
            (self.baseline == "batch" and self.scale in ("group", "mean"),
             f"baseline='batch' with scale={self.scale!r} divides by the deviation or the mean of "
             "groups, which may be 0: use scale='batch'"),
            (self.scale == "mean" and (in_reward or is_overlong),
             "scale='mean' divides by the mean reward, which kl_in='reward' or overlong shaping may"
             " bring to 0: use neither"),
            (self.ratio == "geometric" and self.surrogate != "clip",
             "ratio='geometric' clips each token itself: it needs surrogate='clip'"),
            (self.ratio == "geometric" and self.clip_low == 1.0,
             "clip_low=1.0 has no logarithm: ratio='geometric' needs less"),
            (self.ratio == "geometric" and self.dual_clip is not None,
             f"dual_clip={self.dual_clip} bounds the ratio of a token, ratio='geometric' is that of"
             " a sequence: set it to None"),
            (self.ratio != "token" and self.surrogate == "reinforce",
             f"ratio={self.ratio!r} would do nothing under surrogate='reinforce': use 'token'"),
            (self.ratio == "sequence" and self.surrogate in ("dppo_tv", "dppo_kl"),
             f"ratio='sequence' with surrogate={self.surrogate!r}, which bounds the probability of "
             "each token: use 'token'"),
            (bool(self.teacher_coef) and self.ratio != "token",
             f"teacher_coef={self.teacher_coef} has an advantage for each token, ratio="
             f"{self.ratio!r} one ratio for a sequence: use 'token'"),
            (self.decoupled and self.baseline == "batch",
             "decoupled=True compares within groups: baseline='batch' contradicts it"),
            (self.decoupled and self.scale == "none",
             "decoupled=True normalises: scale='none' contradicts it"),
            (self.decoupled and in_reward,
             "decoupled=True normalises reward functions, kl_in='reward' is none: use 'loss'"),
            (self.decoupled and is_overlong,
             "decoupled=True normalises reward functions, overlong shaping is none"),
        )  # fmt: skip
        return [problem for wrong, problem in pairs if wrong]
