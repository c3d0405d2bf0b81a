"""Experiments on two CPU cores in which one mechanism stands alone, beside what lacks it.

    python launch.py --config=benchmarks/controls.py:preferences    SimPO and DPO
    python launch.py --config=benchmarks/controls.py:curriculum     easy problems first, or any
    python launch.py --config=benchmarks/controls.py:rlpr           the reference's probability

The worlds, models and sizes are those of the rehearsals (configs/_rehearsal.py).
"""

from configs import _rehearsal, base

TOKENS = 32


def get_config(variant: str = ""):
    """The experiment."""
    if variant not in (known := {f.__name__: f for f in (preferences, curriculum, rlpr)}):
        raise ValueError(
            f"variant {variant!r} of benchmarks/controls.py: expected {', '.join(known)}"
        )
    config = base.base()
    known[variant](config)
    return config


def preferences(config):
    """SimPO, held by the chosen ones' likelihood, and DPO on the policy's own completions.

    And SimPO alone at a higher rate: its authors warn that this breaks models.
    """
    _rehearsal.on_a_cpu(config, levels=(2,), max_prompt=38, tokens=TOKENS)
    stages = config.stages
    stages.sft = _rehearsal.warm_up(steps=250, tokens=TOKENS)
    stages.pairs = base.pairs()
    stages.pairs.update(policy="sft", max_new_tokens=TOKENS)
    for name, preset, rate, sft_coef in (
        ("dpo", "dpo", 2e-5, 0.0), ("simpo", "simpo", 4e-5, 1.0), ("simpo_hot", "simpo", 1e-4, 0.0)
    ):  # fmt: skip
        stages[name] = stage = base.preference()
        stage.update(start="sft", steps=60, max_completion=TOKENS)
        stage.loss.update(preset=preset, sft_coef=sft_coef)
        stage.optimizer.update(learning_rate=rate, schedule="cosine", final=0.1)
    stages.evaluate = _rehearsal.side_by_side("sft", "dpo", "simpo", "simpo_hot", tokens=TOKENS)
    stages.evaluate.samples = 4
    config.pipeline = ("sft", "pairs", "dpo", "simpo", "simpo_hot", "evaluate")


def curriculum(config):
    """GRPO on four levels, of which supervised training has seen the first: in order, or any.

    The updates are few: problems that nobody can solve yet teach nothing, and cost as many.
    """
    world = {"worked": 0.35, "max_prompt": 50}
    _rehearsal.on_a_cpu(
        config, levels=(2, 3, 4, 5), tokens=40, train_examples=8000, test_examples=400, **world
    )
    config.datasets.first = base.dataset(
        levels=(2,), train_examples=6000, validation_examples=200, template="plain", **world
    )
    stages = config.stages
    stages.sft = _rehearsal.warm_up(steps=340, tokens=40)
    stages.sft.data = "first"
    stages.promoted = promoted = by_reward(iterations=20, tokens=40)
    promoted.update(prompts=8, group=16)
    promoted.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=True)
    promoted.curriculum.update(order="promoted", threshold=0.45, window=3)
    stages.uniform = promoted.copy_and_resolve_references()
    stages.uniform.curriculum.order = "uniform"
    stages.evaluate = _rehearsal.side_by_side("sft", "promoted", "uniform", tokens=40)
    config.pipeline = ("sft", "promoted", "uniform", "evaluate")


def rlpr(config):
    """The reference's probability as the only reward: nothing compares an answer."""
    _rehearsal.on_a_cpu(config, levels=(2,), worked=0.35, max_prompt=38, tokens=TOKENS)
    stages = config.stages
    stages.sft = _rehearsal.warm_up(steps=340, tokens=TOKENS)
    stages.rlpr = by_reward(iterations=40, tokens=TOKENS)
    stages.rlpr.rewards.reference_probability = base.reward(1.0, 0.0, 1.0, max_answer=4)
    stages.shuffled = stages.rlpr.copy_and_resolve_references()
    stages.shuffled.shuffle_rewards = True
    stages.evaluate = _rehearsal.side_by_side("sft", "rlpr", "shuffled", tokens=TOKENS)
    config.pipeline = ("sft", "rlpr", "shuffled", "evaluate")


def by_reward(*, iterations: int, tokens: int):
    """A GRPO stage from the end of supervised training; what it is paid for is added."""
    stage = base.grpo()
    _rehearsal.shorten(stage, iterations=iterations, tokens=tokens)
    stage.update(start="sft", evaluate_every=0)
    return stage
