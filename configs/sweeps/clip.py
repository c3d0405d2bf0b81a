"""The clip range, where each batch is used four times: with one update the ratio is 1.

    python -m grpo.tools.sweep configs/sweeps/clip.py --workdir=runs/sweeps/clip

Supervised training is run once for each seed; all cells of the seed begin from its end.
"""

from configs import base


def get_config():
    """The sweep."""
    ablations = ("", "epochs_4", "epochs_4+clip_higher", "epochs_4+no_clip")
    return base.sweep(ablations=ablations, baseline="epochs_4")
