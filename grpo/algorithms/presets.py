"""The algorithms of the papers, as choices of the pieces, and the configs that start from them.

grpo          arXiv:2402.03300, with this project's clip 0.2 and KL 0.08
dr_grpo       arXiv:2503.20783: no division by length or deviation, no KL
dapo          arXiv:2503.14476: token mean, clip-higher, overlong shaping; dynamic sampling is
              the stage's affair
gspo          arXiv:2507.18071: sequence ratio, its own clip range
rloo          arXiv:2402.14740: REINFORCE, leave-one-out baseline, KL in the reward with this
              project's 0.05
reinforce_pp  arXiv:2501.03262: normalised over the batch, KL in the reward with this project's
              0.01. Deviation: the KL of a sequence is summed into its reward, not spread over
              its tokens
cispo         arXiv:2506.13585: clipped weights, no lower bound. The paper gives no number for
              the upper one
gmpo          arXiv:2507.20673: geometric mean, clip range (e^-0.4, e^0.4)
maxrl         arXiv:2602.02710: A divided by the group's mean reward. Its estimator sums over the
              tokens of a completion; the mean over all tokens and the clip range are those of its
              authors' code, where each batch is used once
dppo          arXiv:2602.04879: trust region on the token's probability, as total variation with
              its authors' limit 0.15, over Dr. GRPO as they recommend. With surrogate="dppo_kl"
              their limit is 0.05
reinforce_pp_baseline
              arXiv:2501.03262, the variant with several completions per prompt: the group's mean
              as baseline, the deviation of the batch, k2 in the loss with its authors' 0.001
              (their scripts have it from 1e-3 down to 1e-5)

dpo, ipo, simpo, orpo, kto
              preference.py, with β = 0.1 (dpo, ipo, kto), λ = 0.1 (orpo, its `coef`), and the
              defaults of SimPO's authors' code. "dpo" with sft_coef=1.0 is RPO, arXiv:2404.19733,
              with its term per token of the update

A config's loss section names a preset and has every field of its class: None is what the preset
has; a value is the config's own. A preset's value that nothing reads under the config's choices is
dropped; a config's own one is an error. OFF is what switches a feature of a preset off.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from grpo.algorithms.distillation import Distillation
from grpo.algorithms.objective import Objective
from grpo.algorithms.preference import Preference

GRPO = Objective(
    baseline="group",
    scale="group",
    eps=1e-6,
    decoupled=False,
    overlong_buffer=None,
    overlong_penalty=None,
    mask_truncated=False,
    teacher_coef=0.0,
    ratio="token",
    surrogate="clip",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    tau_positive=None,
    tau_negative=None,
    divergence_limit=None,
    aggregation="sequence",
    kl="k3",
    kl_in="loss",
    kl_coef=0.08,
    entropy_coef=0.0,
    correction=None,
    correction_level=None,
    correction_cap=None,
    off_policy_limit=None,
)
NO_KL = dataclasses.replace(GRPO, kl_coef=0.0)

DR_GRPO = dataclasses.replace(NO_KL, scale="none", eps=None, aggregation="constant")

PRESETS: dict[str, Objective] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": dataclasses.replace(
        NO_KL, aggregation="token", clip_high=0.28, overlong_buffer=0.2, overlong_penalty=1.0
    ),
    "gspo": dataclasses.replace(NO_KL, ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    "rloo": dataclasses.replace(
        GRPO, baseline="leave_one_out", scale="none", eps=None, aggregation="sum",
        surrogate="reinforce", clip_low=None, clip_high=None,
        kl="k1", kl_in="reward", kl_coef=0.05,
    ),
    "reinforce_pp": dataclasses.replace(
        GRPO, baseline="batch", scale="batch", aggregation="token",
        kl="k1", kl_in="reward", kl_coef=0.01,
    ),
    "cispo": dataclasses.replace(
        NO_KL, surrogate="cispo", clip_low=1.0, clip_high=4.0, aggregation="token"
    ),
    "gmpo": dataclasses.replace(
        NO_KL, ratio="geometric", clip_low=1 - math.exp(-0.4), clip_high=math.exp(0.4) - 1
    ),
    "maxrl": dataclasses.replace(NO_KL, scale="mean", aggregation="token"),
    "dppo": dataclasses.replace(
        DR_GRPO, surrogate="dppo_tv", clip_low=None, clip_high=None, divergence_limit=0.15
    ),
    "reinforce_pp_baseline": dataclasses.replace(
        GRPO, scale="advantages", aggregation="token", kl="k2", kl_coef=1e-3
    ),
}  # fmt: skip

DPO = Preference(
    score="ratio",
    comparison="logistic",
    beta=0.1,
    gamma=0.0,
    margin_coef=0.0,
    label_smoothing=0.0,
    desirable=None,
    undesirable=None,
    coef=1.0,
    sft_coef=0.0,
)
NOT_LOGISTIC: dict[str, None] = {"gamma": None, "margin_coef": None, "label_smoothing": None}
PREFERENCES: dict[str, Preference] = {
    "dpo": DPO,
    "ipo": dataclasses.replace(DPO, comparison="square", **NOT_LOGISTIC),
    "simpo": dataclasses.replace(DPO, score="mean", beta=2.0, gamma=0.5),
    "orpo": dataclasses.replace(DPO, score="odds", beta=1.0, coef=0.1, sft_coef=1.0),
    "kto": dataclasses.replace(
        DPO, comparison="apart", desirable=1.0, undesirable=1.0, **NOT_LOGISTIC
    ),
}
# By paper, or by what it is called: distillation.py.
DISTILLATIONS: dict[str, Distillation] = {
    "gkd": Distillation(
        beta=0.5, temperature=0.9, student_share=0.5, coef=1.0, sft_coef=0.0, top_k=0
    ),
    "kd": Distillation(
        beta=0.0, temperature=2.0, student_share=0.0, coef=2.8, sft_coef=0.3, top_k=0
    ),
}
TABLES: tuple[Mapping[str, Any], ...] = (PRESETS, PREFERENCES, DISTILLATIONS)
OFF: dict[str, Any] = {
    "overlong_buffer": 0.0,
    "overlong_penalty": 0.0,
    "dual_clip": 0.0,
    "correction": "none",
    "correction_level": "none",
    "correction_cap": 0.0,
    "off_policy_limit": 0.0,
}


def resolve(loss: Mapping[str, Any]) -> dict[str, Any]:
    """A loss section with what its preset says filled in; that of such a section is the same."""
    name = loss["preset"]
    known = next((table for table in TABLES if name in table), PRESETS)
    require_known(name, known)
    preset = dataclasses.asdict(known[name])
    if unknown := sorted(loss.keys() - preset.keys() - {"preset"}):
        raise ValueError(f"{unknown[0]}: unknown field of a loss")
    own = {field for field in preset if loss.get(field) is not None}
    # What is off in the preset is not switched off once more.
    own -= {field for field in own if preset[field] is None and _is_off(field, loss[field])}
    fields = {field: loss[field] if field in own else preset[field] for field in preset}
    dropped = known[name].idle(_switched(fields)) - own
    return {"preset": name, **{f: None if f in dropped else x for f, x in fields.items()}}


def require_known(name: str, known: Mapping[str, Any]) -> None:
    """Refuses the name of a preset that there is not."""
    if name not in known:
        raise ValueError(f"preset={name!r}: expected one of {', '.join(known)}")


def objective_of(loss: Mapping[str, Any]) -> Objective:
    """The objective of a loss section, resolved or not."""
    return Objective(**_fields(loss, PRESETS))


def preference_of(loss: Mapping[str, Any]) -> Preference:
    """The same of a section of preferences."""
    return Preference(**_fields(loss, PREFERENCES))


def distillation_of(loss: Mapping[str, Any]) -> Distillation:
    """The same of a section of distillation."""
    return Distillation(**_fields(loss, DISTILLATIONS))


def _fields(loss: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the class of the known presets has them."""
    require_known(loss["preset"], known)
    fields = _switched(resolve(loss))
    del fields["preset"]
    return fields


def _is_off(field: str, value: Any) -> bool:
    """Whether a value is the one that switches its feature off."""
    return field in OFF and value == OFF[field]


def _switched(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as an Objective has them: None where a feature is off."""
    return {field: None if _is_off(field, x) else x for field, x in fields.items()}
