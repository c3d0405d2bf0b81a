"""How strongly the policy is held to the reference: 0, 0.02, 0.08 (the base's), 0.3 per nat.

    python -m grpo.tools.sweep configs/sweeps/kl.py --workdir=runs/sweeps/kl

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    return base.sweep(ablations=("", "no_kl", "kl_0.02", "kl_0.3"))
