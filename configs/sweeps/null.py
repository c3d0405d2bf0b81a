"""Ten times the same, with other seeds: a table that must show no difference.

    python -m grpo.tools.sweep configs/sweeps/null.py --workdir=runs/sweeps/null

Cells share no work here: their seeds differ, also where the table pairs them.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", *(f"copy_{n}" for n in range(1, 10))), seeds=(0, 1, 2))
