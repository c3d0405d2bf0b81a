"""Rewards that have nothing to do with the completions: what training alone does.

    python -m grpo.tools.sweep configs/sweeps/shuffled.py --workdir=runs/sweeps/shuffled

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "shuffled"))
