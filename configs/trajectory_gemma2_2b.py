"""GRPO by a "trajectory reward" on Gemma-2-2B-it, as a public notebook meant it; it never ran.

    python launch.py --config=configs/trajectory_gemma2_2b.py                # as it was meant
    python launch.py --config=configs/trajectory_gemma2_2b.py:better         # the sibling
    python launch.py --config=configs/trajectory_gemma2_2b.py:tiny           # a rehearsal on a CPU
    python launch.py --config=configs/trajectory_gemma2_2b.py --preflight    # does it fit?

One reward, 3 (0.6 · [more than 20 words] · 0.5 + 0.4 · [the gold's text]) (grpo/rewards/
trajectory.py); two prompts and two completions of each an update, 2500 updates, LoRA of rank 64
without the attention's output, AdamW as optax has it by default at a constant 5e-5, no clip, no
top_k, 768 new tokens. Variants, data and weights: configs/_common.py.

**Not run on the published weights by this project.** Expected: nothing; the notebook has no outputs
and cannot run (a Gemma 3 module asked for a Gemma 2 size, a path that is none, a dataset without
prompts), and it won nothing, whatever its title says. Its max_steps of 5000 cannot be reached: the
first 5000 rows are 2500 batches of two. Hardware: none is named; the demo's mesh of 1 x 4 here.

Kept: no instruction, so that nothing tells the model of the tags that the reward asks for, which an
instruction-tuned model will hardly ever write: expect groups of equal rewards. The weights of 60 to
40 that are 43 to 57, as the reasoning term stops at one half. In groups of two the advantages are
plus and minus 0.707 or 0: only which of the two is better counts.

Deviations: those of configs/grpo_demo_gemma3_1b.py that are not of its data; which 5000 of the
training prompts come is of our seed 42. Evaluation is ours: there is none.

:better  a process term about steps: equations of the reasoning that hold and are about the question
(grpo/rewards/steps.py), neither longer nor shorter texts being worth more; both terms in [0, 1], so
that 60 to 40 is what it says; an instruction; groups of eight, as many completions; 3e-6 down to 0,
clipped; and what configs/grpo_gemma2_2b.py mends of data and evaluation. As S5 has it, working
that holds is still worth more than the answer: --config.stages.grpo.rewards.trajectory_steps.\
options.process=0.4 turns that round.
"""

from configs import _common, _rehearsal, base


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "trajectory_gemma2_2b", system, better, rehearsal)


def system():
    """GRPO in groups of two, by the one reward."""
    config = _common.on_gsm8k("gemma2_2b", template="plain")
    config.data.strip_commas = False
    config.stages.grpo = grpo = _common.tunix_grpo(
        iterations=2500, prompts=2, group=2, max_new_tokens=768
    )
    grpo.sampling.temperature = 0.9
    grpo.lora.targets = "q|k|v|gate|up|down"
    grpo.optimizer.update(
        learning_rate=5e-5, schedule="constant", warmup=0.0, b1=0.9, b2=0.999, eps=1e-8,
        weight_decay=1e-4, clip_norm=None,
    )  # fmt: skip
    grpo.rewards.trajectory = base.reward(1.0, 0.0, 2.1)
    config.stages.greedy = _common.evaluation("base", "grpo", examples=400)
    config.pipeline = ("grpo", "greedy")
    return config


def better(config):
    """What is mended, as the docstring says."""
    _common.mended_data(config)
    grpo = config.stages.grpo
    grpo.optimizer.learning_rate = 3e-6
    _common.mended_grpo(grpo, examples=2500)
    del grpo.rewards.trajectory
    grpo.rewards.tag_format = base.reward(0.2, 0.0, 1.0)
    grpo.rewards.trajectory_steps = base.reward(
        1.0, 0.0, 1.0, process=0.6, least=2, about_question=True, strict=False
    )
    _common.mended_evaluation(config.stages.greedy)


def rehearsal(config):
    """The same in small."""
    _rehearsal.in_small(config)
    _rehearsal.small_grpo(config.stages.grpo)
    _rehearsal.small_evaluation(config.stages.greedy, "sft", "grpo")
    _rehearsal.warmed_up(config)
