"""Groups of 2, 4, 8 (the base's) and 16 at equal completions an iteration.

    python -m grpo.tools.sweep configs/sweeps/group_size.py --workdir=runs/sweeps/group_size

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "group_2", "group_4", "group_16"))
