"""Tunix's words for a loss, and ours: its config's fields on the left.

A case is a mapping with `loss_algo`, `loss_agg_mode`, `kl_loss_mode`, `beta`, `epsilon`,
`epsilon_high` and `epsilon_c` (the last two are no fields of its config: its loss looks whether
somebody has set them).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import PRESETS

AGGREGATION = {
    "token-mean": "token",
    "sequence-mean-token-mean": "sequence",
    "seq-mean-token-sum": "sum",
    "sequence-mean-token-sum-norm": "sum",
    "sequence-mean-token-scale": "constant",
}
KL = {"kl": "k1", "mse_kl": "k2", "low_var_kl": "k3"}
RATIO = {"grpo": "token", "gspo-token": "sequence"}
ADVANTAGE = {
    "grpo": {"baseline": "group", "scale": "group", "eps": 1e-6},
    "rloo": {"baseline": "leave_one_out", "scale": "none", "eps": None},
    "drgrpo": {"baseline": "group", "scale": "none", "eps": None},
}
GRPO: dict[str, Any] = {
    "loss_algo": "grpo",
    "loss_agg_mode": "sequence-mean-token-mean",
    "kl_loss_mode": "low_var_kl",
    "beta": 0.08,
    "epsilon": 0.2,
    "epsilon_high": None,
    "epsilon_c": None,
}
# What the tool compares, by what it is about; tests/references/tunix_losses.py has more of them.
LOSSES: dict[str, dict[str, Any]] = {
    "GRPO: clip 0.2, k3 0.08": GRPO,
    "without KL": {**GRPO, "beta": 0.0},
    "k2 in the loss": {**GRPO, "kl_loss_mode": "mse_kl"},
    "mean over tokens, clip-higher 0.28": {
        **GRPO, "epsilon_high": 0.28, "loss_agg_mode": "token-mean",
    },
    "dual clip 1.4": {**GRPO, "epsilon_high": 0.28, "epsilon_c": 1.4},
    "Dr. GRPO's constant length": {
        **GRPO, "beta": 0.0, "loss_agg_mode": "sequence-mean-token-scale",
    },
    "GSPO, clip 0.05 and 0.08": {
        **GRPO, "loss_algo": "gspo-token", "epsilon": 0.05, "epsilon_high": 0.08,
    },
}  # fmt: skip

# Of the update: as configs/base.py has it, but without the warm-up and with a decay to compare. The
# steps are long, or the rounding of parameters would be compared; and with its eps of 1e-8 entries
# whose gradient is little more than rounding would move by whole ones.
OPTIMIZER: dict[str, Any] = {
    "learning_rate": 1e-2, "schedule": "constant", "warmup": 0.0, "final": None,
    "schedule_updates": None, "b1": 0.9, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.1,
    "decayed": ".*", "clip_norm": 1.0,
}  # fmt: skip


def objective_of(case: Mapping[str, Any]) -> Objective:
    """The case in our words; the rest as in the preset "grpo"."""
    return dataclasses.replace(
        PRESETS["grpo"],
        ratio=RATIO[case["loss_algo"]],
        clip_low=case["epsilon"],
        clip_high=case["epsilon_high"] or case["epsilon"],
        dual_clip=case["epsilon_c"],
        aggregation=AGGREGATION[case["loss_agg_mode"]],
        kl=KL[case["kl_loss_mode"]],
        kl_coef=case["beta"],
    )
