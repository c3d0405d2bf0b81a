"""Plans for a robot: Gemma-3-1B-it learns to stack blocks, in the style of a hackathon entry (S12).

    python launch.py --config=configs/robotics_gemma3_1b.py                 # steps that can be done
    python launch.py --config=configs/robotics_gemma3_1b.py:better          # goals that are reached
    python launch.py --config=configs/robotics_gemma3_1b.py:tiny            # a rehearsal on a CPU
    python launch.py --config=configs/robotics_gemma3_1b.py --preflight     # does it fit?

**Nothing is published of such an entry but one sentence of the organisers' blog**: that there was
one, for multi-step planning in robotics. Neither model, data, reward nor numbers are known, and all
numbers here are this project's. So there is no result to expect, and none has been measured: the
config has not been run on the published weights, only traced at its full shape (--preflight).

It is: blocks that are moved one at a time (grpo/data/planning.py), all five levels, made here: no
download and no licence. SFT on 4000 worked plans teaches the notation, which no model knows; GRPO
pays for plans by carrying them out (grpo/rewards/plan.py): half for the share of the steps that can
be done, half for the goal. Four devices (mesh 1 x 4), or one by --config.mesh.tp=1. Hours: not
measured; one GRPO update is of the size of one of configs/grpo_demo_gemma3_1b.py with a quarter of
its tokens, which took 5 s on a TPU v5e-8.

Known flaw, kept: with half of the reward for steps, a plan of legal steps that lead nowhere is
worth half of a right one. :better has a tenth instead, begins with the short plans and goes on when
six tenths of them are right (a curriculum with replay), and leaves out groups that are all alike.

Evaluations count the gold plan, word by word; of level 1 it is the only shortest one, on the other
levels a plan may be right without being counted: reward/plan/mean of metrics.jsonl has it all.

:tiny (and :better,tiny) is a random model of three layers on plans of one and two steps, with the
same stages, rewards and loss. Its controls are the same GRPO with rewards shuffled over the
completions, and more of SFT, whose plans cost nothing here: docs/rehearsals.md.
"""

from configs import _common, _rehearsal, base

LEVELS = (1, 2, 3, 4, 5)


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "robotics_gemma3_1b", system, better, rehearsal)


def system():
    """Supervised training on plans, then GRPO in the world itself."""
    config = _common.published("gemma3_1b")
    config.data.update(
        source="planning", levels=LEVELS, train_examples=4000, validation_examples=200,
        test_examples=500, template="reasoning_tags", max_prompt=192, buckets=(192,),
    )  # fmt: skip
    config.evaluation.update(split="validation", examples=100, batch=100, max_new_tokens=128)

    config.stages.sft = sft = base.sft()
    sft.update(steps=250, batch=16, max_target=128, microbatches=4)
    sft.lora.update(rank=32, alpha=32.0, targets=_common.LAYERS)
    sft.optimizer.update(learning_rate=1e-4, schedule="cosine", final=0.1)

    config.stages.grpo = grpo = _common.domain_grpo(
        rank=32, iterations=500, group=8, max_new_tokens=128, microbatches=2,
        evaluate_every=50, checkpoint_every=100,
    )  # fmt: skip
    grpo.rewards.plan = base.reward(1.0, 0.0, 1.0, prefix=0.5)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "sft", "grpo"), batch=100, max_new_tokens=128)
    config.pipeline = ("sft", "grpo", "evaluate")
    return config


def better(config):
    """The goal counts, short plans come first, groups without a difference are left out."""
    grpo = config.stages.grpo
    grpo.dynamic_sampling = "drop"
    grpo.rewards.plan = base.reward(1.0, 0.0, 1.0, prefix=0.1)
    grpo.curriculum.update(order="promoted", by="level", metric="reward", threshold=0.6)
    config.stages.evaluate.update(samples=8, ks=(1, 8))


def rehearsal(config):
    """The same with a small model on short plans, beside shuffled rewards and more SFT."""
    _rehearsal.beside_more_sft(
        config, sft=400, grpo=80, more=60, tokens=24,
        source="planning", levels=(1, 2), max_prompt=38, train_examples=12000,
    )  # fmt: skip
    stages = config.stages
    stages.grpo.evaluate_every = 20
    stages.grpo.optimizer.learning_rate = 3e-4
    stages.shuffled = stages.grpo.copy_and_resolve_references()
    stages.shuffled.update(start="sft", shuffle_rewards=True)
    stages.evaluate.policies = ("sft", "grpo", "shuffled", "more_sft")
    config.pipeline = ("sft", "grpo", "shuffled", "more_sft", "evaluate")
