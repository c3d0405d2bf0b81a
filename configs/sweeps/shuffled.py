"""Rewards that have nothing to do with the completions: what training alone does.

python -m grpo.tools.sweep configs/sweeps/shuffled.py --workdir=runs/sweeps/shuffled
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "shuffled"))
