"""Amounts of substance: Gemma-3-1B-it learns stoichiometry, in the style of an entry (S12).

    python launch.py --config=configs/chemistry_gemma3_1b.py                # any unit, or none
    python launch.py --config=configs/chemistry_gemma3_1b.py:better         # the unit counts
    python launch.py --config=configs/chemistry_gemma3_1b.py:tiny           # a rehearsal on a CPU
    python launch.py --config=configs/chemistry_gemma3_1b.py --preflight    # does it fit?

**Nothing is published of such an entry but that the organisers' blog names one, for chemistry.**
Model, data, reward and numbers are not known; all numbers here are this project's. There is no
result to expect, and none has been measured: the config has not been run on the published weights,
only traced at its full shapes (--preflight).

It is: grams, moles and litres of ten substances (grpo/data/stoichiometry.py), made here: no
download and no licence. GRPO alone, as Gemma-3-1B-it knows the words; the reward is whether the
answer is the quantity, in whichever unit of its kind, within 5 %; a number without a unit is taken
to be in the right one. Answers that are molecules (ether0's, CC-BY-4.0) would need a chemistry
library and are not here. Four devices (mesh 1 x 4), or one by --config.mesh.tp=1. Hours: not
measured; 500 of the 1869 updates of configs/grpo_demo_gemma3_1b.py, at half of its tokens.

Flaws, kept: "7" is right where moles were asked and grams were meant, a near miss is right, and the
form is worth as much as a third of the answer. :better wants the unit and the very quantity, within
the strict form only, pays a little for equations on the way where they are the solution's
(checkpoints_equations: three tenths of it without the right answer) and leaves out groups that are
all alike.

:tiny (and :better,tiny): three layers, random weights, the levels of one step, after a warm-up in
which half of the solutions show the sum. `more_sft` is the control, without any reward. Answers in
the table are compared as texts, the unit among them.
"""

from configs import _common, _rehearsal, base


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "chemistry_gemma3_1b", system, better, rehearsal)


def system():
    """GRPO for quantities."""
    config = _common.published("gemma3_1b")
    config.data.update(
        source="stoichiometry", levels=(1, 2, 3), train_examples=2000, validation_examples=100,
        test_examples=400, template="reasoning_tags", max_prompt=128, buckets=(128,),
    )  # fmt: skip
    config.evaluation.update(split="validation", examples=100, batch=100, max_new_tokens=256)

    config.stages.grpo = grpo = _common.domain_grpo(
        rank=32, iterations=500, group=4, max_new_tokens=256, microbatches=4,
        evaluate_every=50, checkpoint_every=100,
    )  # fmt: skip
    grpo.rewards.unit_answer = base.reward(1.0, 0.0, 1.0, tolerance=0.05, bare=True, strict=False)
    grpo.rewards.tag_format = base.reward(0.3, 0.0, 1.0)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "grpo"), batch=100, max_new_tokens=256)
    config.pipeline = ("grpo", "evaluate")
    return config


def better(config):
    """The quantity with its unit in the strict form, and less for the sums on the way."""
    grpo = config.stages.grpo
    del grpo.rewards.tag_format
    grpo.rewards.strict_format = base.reward(0.1, 0.0, 1.0)
    grpo.rewards.unit_answer = base.reward(1.0, 0.0, 1.0, tolerance=0.0, bare=False, strict=True)
    grpo.rewards.checkpoints_equations = _common.equations(0.3)
    grpo.dynamic_sampling = "drop"
    config.stages.evaluate.update(baselines=(0,))


def rehearsal(config):
    """The same with a small model, beside more SFT."""
    _rehearsal.beside_more_sft(
        config, sft=300, grpo=40, more=60, tokens=24,
        source="stoichiometry", levels=(1, 2), worked=0.5, max_prompt=38,
        train_examples=1200, validation_examples=100, test_examples=200,
    )  # fmt: skip
