"""The algorithms of the papers, as choices of the pieces.

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
"""

import dataclasses
import math

from grpo.algorithms.objective import Objective

GRPO = Objective(
    baseline="group",
    scale="group",
    eps=1e-6,
    decoupled=False,
    overlong_buffer=None,
    overlong_penalty=None,
    mask_truncated=False,
    ratio="token",
    surrogate="clip",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    tau_positive=None,
    tau_negative=None,
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

PRESETS: dict[str, Objective] = {
    "grpo": GRPO,
    "dr_grpo": dataclasses.replace(NO_KL, scale="none", eps=None, aggregation="constant"),
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
}  # fmt: skip
