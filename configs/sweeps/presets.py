"""Every loss preset on the tiny experiment, against plain GRPO.

    python -m grpo.tools.sweep configs/sweeps/presets.py --workdir=runs/sweeps/presets

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    presets = (
        "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "cispo", "gmpo", "maxrl", "dppo",
        "reinforce_pp_baseline",
    )  # fmt: skip
    return base.sweep(ablations=("", *(f"preset_{name}" for name in presets)))
