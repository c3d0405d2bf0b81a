"""Which of the pieces an update is made of, and what goes with what.

Every field is said, none has a default here: defaults are in configs/base.py, the algorithms of the
papers in presets.py. A field that would do nothing, or contradicts another, is refused; None is how
a field says that it is not in play. (A coefficient of 0 switches its term off by itself.)
"""

import dataclasses
import warnings

from grpo.algorithms.advantages import BASELINES, SCALES
from grpo.algorithms.aggregation import AGGREGATIONS
from grpo.algorithms.correction import CORRECTIONS, LEVELS
from grpo.algorithms.kl import KL
from grpo.algorithms.ratios import RATIOS
from grpo.algorithms.surrogates import SURROGATES


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
    # The surrogate: ratios.py, surrogates.py
    ratio: str
    surrogate: str
    clip_low: float | None
    clip_high: float | None
    dual_clip: float | None
    tau_positive: float | None
    tau_negative: float | None
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

    def problems(self) -> list[str]:
        """Everything that is wrong, a line each."""
        found = [
            f"{field}={getattr(self, field)!r}: expected one of {', '.join(choices)}"
            for field, choices in (
                ("baseline", BASELINES),
                ("scale", SCALES),
                ("ratio", RATIOS),
                ("surrogate", SURROGATES),
                ("aggregation", AGGREGATIONS),
                ("kl", KL),
                ("kl_in", ("loss", "reward")),
            )
            if getattr(self, field) not in choices
        ]

        def needs(field: str, wanted: bool, reason: str, low: float, high: float) -> None:
            value = getattr(self, field)
            if value is None:
                if wanted:
                    found.append(f"{field}=None: a number is needed {reason}")
            elif not wanted:
                found.append(f"{field}={value} would do nothing {reason}: set it to None")
            elif not low < value <= high:
                found.append(f"{field}={value}: expected more than {low}, at most {high}")

        some, huge = 0.0, float("inf")
        under = f"under surrogate={self.surrogate!r}"
        clips = self.surrogate in ("clip", "cispo")
        needs("eps", self.scale != "none", f"under scale={self.scale!r}", some, 1.0)
        needs("clip_low", clips, under, some, 1.0)
        needs("clip_high", clips, under, some, huge)
        for tau in ("tau_positive", "tau_negative"):
            needs(tau, self.surrogate == "sapo", under, some, huge)
        if self.dual_clip is not None:
            dual = self.surrogate == "clip" and self.ratio != "geometric"
            needs("dual_clip", dual, f"{under} and ratio={self.ratio!r}", 1.0, huge)
        shaped = self.overlong_buffer is not None or self.overlong_penalty is not None
        for field, high in (("overlong_buffer", 1.0), ("overlong_penalty", huge)):
            needs(field, shaped, "beside the other overlong field", some, high)
        corrects = self.correction is not None
        if corrects and self.correction not in CORRECTIONS:
            found.append(
                f"correction={self.correction!r}: expected None or {', '.join(CORRECTIONS)}"
            )
        if (self.correction_level in LEVELS) != corrects or (
            not corrects and self.correction_level is not None
        ):
            found.append(
                f"correction_level={self.correction_level!r}: expected "
                + (f"one of {', '.join(LEVELS)}" if corrects else "None without a correction")
            )
        needs("correction_cap", corrects, f"under correction={self.correction!r}", 1.0, huge)
        if self.off_policy_limit is not None:
            needs("off_policy_limit", True, "", some, huge)
        for field in ("kl_coef", "entropy_coef"):
            value = getattr(self, field)
            if value is None or not 0 <= value < huge:
                found.append(f"{field}={value}: expected a number from 0 on")
        found.extend(self._contradictions())
        return found

    def _contradictions(self) -> list[str]:
        """Pairs of fields that exclude each other."""
        pairs = (
            (self.baseline == "batch" and self.scale == "group",
             "baseline='batch' with scale='group' divides by the deviation of groups that may "
             "have none: use scale='batch'"),
            (self.ratio == "geometric" and self.surrogate != "clip",
             "ratio='geometric' clips each token itself: it needs surrogate='clip'"),
            (self.ratio == "geometric" and self.clip_low == 1.0,
             "clip_low=1.0 has no logarithm: ratio='geometric' needs less"),
            (self.ratio != "token" and self.surrogate == "reinforce",
             f"ratio={self.ratio!r} would do nothing under surrogate='reinforce': use 'token'"),
            (self.decoupled and self.baseline == "batch",
             "decoupled=True compares within groups: baseline='batch' contradicts it"),
            (self.decoupled and self.scale == "none",
             "decoupled=True normalises: scale='none' contradicts it"),
            (self.decoupled and self.kl_in == "reward" and self.kl_coef > 0,
             "decoupled=True normalises reward functions, kl_in='reward' is none: use 'loss'"),
            (self.decoupled and self.overlong_buffer is not None,
             "decoupled=True normalises reward functions, overlong shaping is none"),
        )  # fmt: skip
        return [problem for wrong, problem in pairs if wrong]
