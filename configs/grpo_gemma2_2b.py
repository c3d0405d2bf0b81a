"""The Tunix GRPO demo on Gemma-2-2B-it, as a public notebook meant it and could not run it.

    python launch.py --config=configs/grpo_gemma2_2b.py                # as it was meant
    python launch.py --config=configs/grpo_gemma2_2b.py:better         # the sibling, see below
    python launch.py --config=configs/grpo_gemma2_2b.py:tiny           # a rehearsal on a CPU
    python launch.py --config=configs/grpo_gemma2_2b.py --preflight    # does it fit?

"TT-Tunix": the rewards and numbers of configs/grpo_demo_gemma3_1b.py with two prompts an update,
3737 updates, one epoch. Variants, data and weights: configs/_common.py.

**Not run on the published weights by this project.** Expected: nothing is known; the notebook ends
in `get_lora_model`, with a flax newer than its qwix (google/qwix PR 143). Other runs of GRPO from
these weights report 54 to 63 % of a part of GSM8K (their authors' words, no outputs). Hardware: its
mesh, four chips of a Kaggle TPU v5e-8; --config.mesh.tp=1 for one device. The demo's 1869 updates
of 16 completions of a 1B took 2 h 35 min on these; how long this one takes is not measured.

Kept: the demo's rewards, golds with commas, the prompt without its last line break, the schedule of
3738 updates. What Gemma 2 asks for is the model's and the tokenizer's affair: soft-capped scores
and logits, local and global layers in turn, and the stop ids 1 and 107 (<eos>, <end_of_turn>; 106
in Gemma 3), which the notebook did not set, so that its completions would have run on.

Deviations: those of configs/grpo_demo_gemma3_1b.py. The notebook read the same rows as CSV from
Kaggle (thedevastator/grade-school-math-8k-q-a, licence not verified); main_train.csv and
main_test.csv can be given for the files. One prompt of more than 256 tokens at most is dropped.

:better  golds as numbers, the prompt as the chat template has it, a right answer that outweighs the
form, eight groups of eight (as many completions), no groups without variance, a schedule that ends,
validation, all 1319 test problems, and the base as its own chat template asks it beside.
"""

from configs import _common, _rehearsal
from configs import grpo_demo_gemma3_1b as demo


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "grpo_gemma2_2b", system, better, rehearsal)


def system():
    """The demo, of another model."""
    config = demo.demo()
    config.model.update(path=_common.PATHS["gemma2_2b"], size="gemma2_2b")
    config.stages.grpo.update(prompts=2, iterations=3737)
    return config


def better(config):
    """What is mended of the demo, for this experiment and for others that begin with it."""
    _common.mended_data(config)
    grpo = config.stages.grpo
    _common.mended_grpo(grpo)
    for name in list(grpo.rewards):
        del grpo.rewards[name]
    _common.right_in_form(grpo.rewards)
    for name in ("greedy", "standard", "liberal"):
        _common.mended_evaluation(config.stages[name])


def rehearsal(config):
    """The same in small, for this experiment and for others that begin with the demo."""
    _rehearsal.in_small(config)
    _rehearsal.small_grpo(config.stages.grpo)
    for name in ("greedy", "standard", "liberal"):
        _rehearsal.small_evaluation(config.stages[name], "sft", "grpo")
    _rehearsal.warmed_up(config)
