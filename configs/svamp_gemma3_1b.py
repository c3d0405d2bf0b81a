"""GRPO on SVAMP by seven rewards, the easiest problems first, on Gemma-3-1B-it.

    python launch.py --config=configs/svamp_gemma3_1b.py                # as it was
    python launch.py --config=configs/svamp_gemma3_1b.py:better         # the sibling, see below
    python launch.py --config=configs/svamp_gemma3_1b.py:tiny           # a rehearsal on a CPU
    python launch.py --config=configs/svamp_gemma3_1b.py --preflight    # does it fit?

A public run (thotab13): groups of four, KL 0.04, 2000 updates, problems sorted by the complexity of
their equations, the sum of two of the demo's rewards and five of its own (grpo/rewards/svamp.py).
Variants and weights: configs/_common.py.

Data: SVAMP (github.com/arkilpatel/SVAMP, MIT by its repository; verify), as JSON lines with the
fields question, answer, checkpoints in data/svamp/train.jsonl and test.jsonl. Its Body and Question
are one question, its number is written without ".0", its Equation is the one checkpoint, from which
the complexity is read, as the number of operations:

    {"question": "Jack has 8 pens ... ?", "answer": "5", "checkpoints": ["( 8.0 - 3.0 )"]}

**Not run on the published weights by this project.** Expected (its outputs): 76 of 140 test
problems before, 54.3 %, and 94 after, 67.1 %; form 85.7 and 98.6 %. Which 140 is not said: here all
300 of the test file are asked. These are accuracy/demo and format/demo of evaluations/greedy.json.
Hardware: not said; the demo's mesh of 1 x 4.

Kept: the rewards with their flaws, connectives found within words, letters taken for algebra, any
fifteen words for a reasoning, near misses paid.

Deviations: one prompt an update (not known; as Tunix's repository has it), so that the 700 problems
come sorted once, and then in the usual order; learning rate, adapter, sampling and the rest are the
demo's; prompt and deviations as in configs/grpo_demo_gemma3_1b.py:repo.

:better  a right answer that outweighs the form; eight groups of eight, as many completions; buckets
of equal difficulty with a share of easier ones in place of the sorted order, promoted by what is
right; no groups without variance, a tenth held out by a hash for validation, sixteen samples, and
the base as its own chat template asks it.
"""

from configs import _common, _rehearsal, base

COLUMNS = {"question": "question", "answer": "answer", "checkpoints": "checkpoints"}


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "svamp_gemma3_1b", system, better, rehearsal)


def system():
    """GRPO by seven rewards, the problems sorted by complexity."""
    config = _common.on_gsm8k("gemma3_1b", template="s1_repo")
    config.data.update(
        source="rows", train="data/svamp/train.jsonl", test="data/svamp/test.jsonl",
        columns=COLUMNS,
    )  # fmt: skip
    config.stages.grpo = grpo = _common.tunix_grpo(
        iterations=2000, prompts=1, group=4, max_new_tokens=512
    )
    grpo.sampling.update(temperature=0.9, top_k=50)
    grpo.loss.kl_coef = 0.04
    grpo.curriculum.update(order="sorted", by="operations")
    _common.demo_optimizer(grpo.optimizer)
    _common.demo_rewards(grpo.rewards)
    del grpo.rewards.demo_answer, grpo.rewards.demo_numbers
    for name, low, high in (
        ("answer", -1.0, 3.0), ("number", 0.0, 2.0), ("connectives", 0.0, 1.0),
        ("length", 0.0, 1.0), ("algebra", 0.0, 1.2),
    ):  # fmt: skip
        grpo.rewards[f"svamp_{name}"] = base.reward(1.0, low, high)
    config.stages.greedy = _common.evaluation("base", "grpo")
    config.pipeline = ("grpo", "greedy")
    return config


def better(config):
    """What is mended, as the docstring says."""
    config.data.validation_share = 0.1
    config.evaluation.update(split="validation", examples=100, batch=100, max_new_tokens=512)
    grpo = config.stages.grpo
    _common.mended_grpo(grpo, examples=2000)
    grpo.evaluate_every = 25
    for name in list(grpo.rewards):
        del grpo.rewards[name]
    _common.right_in_form(grpo.rewards)
    # SVAMP has one operation, or two.
    grpo.curriculum.update(order="promoted", metric="right", threshold=0.7, window=10, replay=0.2)
    config.stages.greedy.update(samples=16, ks=(1, 5, 16), baselines=(0,))


def rehearsal(config):
    """The same in small, with problems of one and of three operations."""
    validation = 200 if config.data.validation_share else 0
    _rehearsal.in_small(config, levels=(1, 2), validation_share=0.0, validation_examples=validation)
    _rehearsal.small_grpo(config.stages.grpo)
    config.stages.grpo.curriculum.window = 3
    _rehearsal.small_evaluation(config.stages.greedy, "sft", "grpo")
    _rehearsal.warmed_up(config)
