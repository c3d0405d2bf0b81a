"""The loss of preferences: of two completions of a prompt, w is better than l.

    L = coef · Σ_p share_p f(s_w - s_l) + sft_coef · Σ_t weight_t (-log π(w_t))

            score s of a completion y        f(Δ), with σ the logistic function
    dpo     Σ_t log π/π_ref                  -log σ(βΔ - γ)                       arXiv:2305.18290
    ipo     Σ_t log π/π_ref                  (Δ - 1/(2β))²                        arXiv:2310.12036
    simpo   1/|y| Σ_t log π                  -log σ(βΔ - γ)                       arXiv:2405.14734
    orpo    log p/(1-p) of p = exp(simpo's)  -log σ(βΔ - γ)                       arXiv:2403.07691
    kto     Σ_t log π/π_ref                  (λ_w σ(β(z - s_w)) + λ_l σ(β(s_l - z))) / 2
                                                                                  arXiv:2402.01306
γ is what the objective asks for of every pair, and `margin_coef` times the margin that the dataset
gives this one. With a smoothing ε the labels are wrong in a share ε of the pairs (cDPO):

    -(1 - ε) log σ(βΔ - γ) - ε log σ(γ - βΔ)

z is what the policy has moved from the reference anyway: max(0, mean of s over completions of other
prompts), made once per update and without a gradient.

Deviations: the probability that orpo takes the odds of is held below 1 - 1e-6. kto's constant λ is
left out. ipo's score is the paper's sum; "ratio_mean" has the mean over tokens that others use.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.algorithms.masked import inside, masked_sum
from grpo.algorithms.metrics import Metrics
from grpo.algorithms.objective import keywords

Array = jax.Array
NEAREST = -1e-6  # the log of a probability that has odds


class Pairs(NamedTuple):
    """P pairs: of the axis 2 the first is chosen, the second rejected; T = I + C."""

    ids_P2T: Any
    mask_P2T: Any
    completion_mask_P2C: Any
    ref_logprob_P2: Any  # of whole completions; None without a reference
    margin_P: Any  # the dataset's own; 0 where it has none
    moved_P: Any  # kto's z, the same for all; None for the others
    share_P: Any  # of the update's pairs, 1 / P
    weight_PC: Any  # of the chosen completions' tokens in the supervised term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference:
    """The options of an update from preferences; None is a number that is not in play."""

    score: str
    comparison: str
    beta: float
    gamma: float | None
    margin_coef: float | None
    label_smoothing: float | None
    desirable: float | None  # λ_w
    undesirable: float | None  # λ_l
    coef: float
    sft_coef: float

    def __post_init__(self):
        if problems := self.problems():
            raise ValueError("; ".join(problems))

    @property
    def has_reference(self) -> bool:
        """Whether scores are relative to a reference."""
        return self.score in RELATIVE

    @staticmethod
    def idle(fields: Mapping[str, Any]) -> set[str]:
        """The fields that nothing would read under the choices of the others."""
        if (comparison := COMPARISONS.get(fields["comparison"])) is None:
            return set()
        every = frozenset().union(*map(keywords, COMPARISONS.values()))
        return set(every - keywords(comparison))

    def read_by(self, comparison: Callable) -> dict[str, Any]:
        """The fields that a comparison reads, as its keywords."""
        return {name: getattr(self, name) for name in keywords(comparison)}

    def problems(self) -> list[str]:
        """Everything that is wrong, a line each."""
        found = [
            f"{field}={getattr(self, field)!r}: expected one of {', '.join(choices)}"
            for field, choices in (("score", SCORES), ("comparison", COMPARISONS))
            if getattr(self, field) not in choices
        ]
        unread = self.idle(dataclasses.asdict(self))
        for field, (low, high) in NUMBERS.items():
            value = getattr(self, field)
            if field in unread and value is not None:
                found.append(f"{field}={value} would do nothing under comparison="
                             f"{self.comparison!r}: set it to None")  # fmt: skip
            elif field not in unread and (value is None or not low <= value < high):
                found.append(f"{field}={value}: expected a number from {low} on, below {high}")
        if self.beta == 0:
            found.append("beta=0: expected more, or nothing would be compared")
        if not found and self.coef == self.sft_coef == 0:
            found.append("coef=0 with sft_coef=0: nothing would be learnt")
        if not found and self.comparison == "apart" and self.score not in RELATIVE:
            found.append(
                f"score={self.score!r}: comparison='apart' needs one of {', '.join(RELATIVE)}"
            )
        return found


NUMBERS = {  # from this on, below that
    "beta": (0.0, math.inf),
    "gamma": (0.0, math.inf),
    "margin_coef": (0.0, math.inf),
    "label_smoothing": (0.0, 0.5),
    "desirable": (0.0, math.inf),
    "undesirable": (0.0, math.inf),
    "coef": (0.0, math.inf),
    "sft_coef": (0.0, math.inf),
}


# Scores of completions, from the sums and means of their tokens' log-probs.


def ratio(sum_P2: Array, ref_P2: Array, length_P2: Array) -> Array:
    """Σ_t log π/π_ref."""
    return sum_P2 - ref_P2


def ratio_mean(sum_P2: Array, ref_P2: Array, length_P2: Array) -> Array:
    """1/|y| Σ_t log π/π_ref."""
    return (sum_P2 - ref_P2) / length_P2


def mean(sum_P2: Array, ref_P2: Array | None, length_P2: Array) -> Array:
    """1/|y| Σ_t log π."""
    return sum_P2 / length_P2


def odds(sum_P2: Array, ref_P2: Array | None, length_P2: Array) -> Array:
    """log p/(1-p), with p = exp(1/|y| Σ_t log π)."""
    log_p_P2 = jnp.minimum(sum_P2 / length_P2, NEAREST)
    return log_p_P2 - jnp.log(-jnp.expm1(log_p_P2))


# What a pair of scores costs.


def logistic(
    score_P2: Array,
    pairs: Pairs,
    *,
    beta: float,
    gamma: float,
    margin_coef: float,
    label_smoothing: float,
) -> Array:
    """-(1 - ε) log σ(βΔ - γ) - ε log σ(γ - βΔ)."""
    ahead_P = beta * (score_P2[:, 0] - score_P2[:, 1])
    ahead_P = ahead_P - gamma - margin_coef * pairs.margin_P
    right_P, wrong_P = jax.nn.log_sigmoid(ahead_P), jax.nn.log_sigmoid(-ahead_P)
    return -(1 - label_smoothing) * right_P - label_smoothing * wrong_P


def square(score_P2: Array, pairs: Pairs, *, beta: float) -> Array:
    """(Δ - 1/(2β))²."""
    return (score_P2[:, 0] - score_P2[:, 1] - 1 / (2 * beta)) ** 2


def apart(
    score_P2: Array, pairs: Pairs, *, beta: float, desirable: float, undesirable: float
) -> Array:
    """(λ_w σ(β(z - s_w)) + λ_l σ(β(s_l - z))) / 2."""
    moved_P = jax.lax.stop_gradient(pairs.moved_P)
    chosen_P = desirable * jax.nn.sigmoid(beta * (moved_P - score_P2[:, 0]))
    rejected_P = undesirable * jax.nn.sigmoid(beta * (score_P2[:, 1] - moved_P))
    return (chosen_P + rejected_P) / 2


SCORES = {"ratio": ratio, "ratio_mean": ratio_mean, "mean": mean, "odds": odds}
COMPARISONS = {"logistic": logistic, "square": square, "apart": apart}
RELATIVE = ("ratio", "ratio_mean")


def preference_loss(
    logprob_P2C: Array, pairs: Pairs, *, objective: Preference
) -> tuple[Array, Metrics]:
    """The loss of some of an update's pairs, and the metrics; both add up over pairs."""
    if objective.has_reference and pairs.ref_logprob_P2 is None:
        raise ValueError(f"score={objective.score!r} needs ref_logprob: it was not given")
    if objective.comparison == "apart" and pairs.moved_P is None:
        raise ValueError("comparison='apart' needs moved: it was not given")
    mask_P2C = pairs.completion_mask_P2C
    sum_P2 = jnp.sum(inside(logprob_P2C, mask_P2C), axis=2)
    length_P2 = jnp.maximum(jnp.sum(mask_P2C != 0, axis=2), 1)
    score_P2 = SCORES[objective.score](sum_P2, pairs.ref_logprob_P2, length_P2)
    comparison = COMPARISONS[objective.comparison]
    cost_P = comparison(score_P2, pairs, **objective.read_by(comparison))
    sums = {
        "loss/preference": masked_sum(cost_P, pairs.share_P),
        "loss/sft": -masked_sum(logprob_P2C[:, 0], pairs.weight_PC),
    }
    loss = objective.coef * sums["loss/preference"] + objective.sft_coef * sums["loss/sft"]
    ahead_P, token_P2 = score_P2[:, 0] - score_P2[:, 1], sum_P2 / length_P2
    sums |= {
        "loss": loss,
        "preference/accuracy": masked_sum((ahead_P > 0).astype(jnp.float32), pairs.share_P),
        "preference/ahead": masked_sum(ahead_P, pairs.share_P),
        "logprob/chosen": masked_sum(token_P2[:, 0], pairs.share_P),
        "logprob/rejected": masked_sum(token_P2[:, 1], pairs.share_P),
    }
    return loss, Metrics(sums=jax.lax.stop_gradient(sums), tops={})
