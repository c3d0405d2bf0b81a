"""DAPO with its penalty for long completions and without it, against plain GRPO.

    python -m grpo.tools.sweep configs/sweeps/overlong.py --workdir=runs/sweeps/overlong

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "preset_dapo", "preset_dapo_no_overlong"))
