"""How many solutions of supervised training show their working; 0.35 is the base's.

    python -m grpo.tools.sweep configs/sweeps/worked_share.py --workdir=runs/sweeps/worked_share

Cells share no work here: their data differ.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "worked_0", "worked_0.1", "worked_0.7", "worked_1"))
