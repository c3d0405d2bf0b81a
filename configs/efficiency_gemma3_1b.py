"""The "efficiency build" of the Tunix GRPO demo on Gemma-3-1B-it: a smaller adapter and batch.

    python launch.py --config=configs/efficiency_gemma3_1b.py           # as it was
    python launch.py --config=configs/efficiency_gemma3_1b.py:better    # the sibling, see below
    python launch.py --config=configs/efficiency_gemma3_1b.py:r16,p4    # rank 16, 4 prompts
    python launch.py --config=configs/efficiency_gemma3_1b.py:tiny      # a rehearsal on a CPU

A public tutorial: configs/grpo_demo_gemma3_1b.py with LoRA of rank and alpha 32 instead of 64, and
two prompts an update, so that 3737 updates are one epoch and the schedule of 3738 ends. It claims
"significant performance gains" and shows no numbers. Variants, data and weights: configs/_common.py

What it is about, memory and quality by size, is the sweep that it did not make: ranks 8, 16, 32, 64
(alpha the same, so that the adapter's scale is 1) times 1, 2, 4, 8 prompts an update, each of one
epoch. `grid()` is the list of its sixteen variants:

    for v in $(python -c 'from configs.efficiency_gemma3_1b import grid; print(*grid())'); do
      python launch.py --config=configs/efficiency_gemma3_1b.py:$v --preflight   # or without it
    done

**Not run on the published weights by this project.** Expected: no result is known; the demo with
twice the rank and batch went from 14.5 to 43.25 % by its own count (its outputs). Hardware: the
tutorial speaks of a TPU v3-8 and has the demo's mesh of 1 x 4, which is used here.

Deviations: those of configs/grpo_demo_gemma3_1b.py. Where more prompts make fewer updates the
schedule is as long as these.

:better  as in configs/grpo_gemma2_2b.py, with its eight groups of eight; r8 to r64 go with it, and
p1 to p8 stand for so many groups.
"""

from configs import _common, grpo_gemma2_2b
from configs import grpo_demo_gemma3_1b as demo

RANKS, PROMPTS = (8, 16, 32, 64), (1, 2, 4, 8)
EXAMPLES = 7473


def grid() -> list[str]:
    """The variants of the sweep."""
    return [f"r{rank},p{prompts}" for rank in RANKS for prompts in PROMPTS]


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, r8 to r64, p1 to p8, or is ""."""
    sizes = {f"r{rank}": rank for rank in RANKS}, {f"p{count}": count for count in PROMPTS}
    words = _common.words_of(variant, "efficiency_gemma3_1b", *sizes[0], *sizes[1])
    ranks, prompts = ([known[word] for word in words if word in known] for known in sizes)
    if len(ranks) > 1 or len(prompts) > 1:
        raise ValueError(
            f"variant {variant!r} of configs/efficiency_gemma3_1b.py: expected one rank, one batch"
        )
    config = demo.demo()
    grpo = config.stages.grpo
    grpo.lora.update(rank=32, alpha=32.0)
    grpo.update(prompts=2, iterations=3737)
    if "better" in words:
        grpo_gemma2_2b.better(config)
    if ranks:
        grpo.lora.update(rank=ranks[0], alpha=float(ranks[0]))
    if prompts:
        grpo.update(prompts=prompts[0], iterations=-(-EXAMPLES // prompts[0]))
        grpo.optimizer.schedule_updates = None
    if "tiny" in words:
        grpo_gemma2_2b.rehearsal(config)
    return config
