"""What experiments after public systems share: variants, models, data, a sibling done better.

Each of them takes variants, with commas between them:

    ""       the system as it was, its flaws among it
    better   a sibling in which these are mended; nobody has measured it
    tiny     a rehearsal of the same stages, rewards, losses and schedules on two CPU cores: random
             weights, a world made here, short prompts without instruction, fewer and larger
             updates at learning rates that move so small a model. Supervised training is of all
             parameters, as random ones are no base for an adapter, and comes first where the
             system has none. It shows that everything works together, and how far a reward leads
             there; of the published model, nothing

Data: GSM8K's own files (MIT), train.jsonl and test.jsonl of github.com/openai/grade-school-math,
folder grade_school_math/data, in data/gsm8k/ here; or elsewhere by --config.data.train=FILE
--config.data.test=FILE. Weights: of the Hub (accept the Gemma licence, `hf auth login`), or a
directory of them by --config.model.path=DIRECTORY.
"""

from configs import base

LAYERS = "q|k|v|o|gate|up|down"  # all that an adapter may change
PATHS = {
    "gemma3_1b": "google/gemma-3-1b-it",
    "gemma3_4b": "google/gemma-3-4b-it",
    "gemma2_2b": "google/gemma-2-2b-it",
}
TRACES = {  # columns of what python -m grpo.tools.teach leaves
    "domain": "domain", "question": "prompt", "chosen": "chosen", "metadata": "metadata_json",
}  # fmt: skip
IN_BFLOAT16 = {"dtype": "bfloat16", "param_dtype": "bfloat16", "remat": "full"}


def words_of(variant: str, file: str, *own: str) -> list[str]:
    """The words of a variant; an unknown one is an error."""
    words, known = variant.split(",") if variant else [], (*own, "better", "tiny")
    if set(words) - set(known) or len(set(words)) < len(words):
        raise ValueError(
            f"variant {variant!r} of configs/{file}.py: expected some of {', '.join(known)}, "
            "with commas between them, or none"
        )
    return words


def variant_of(variant: str, file: str, system, better, rehearsal):
    """The config that `system` makes, perhaps mended by `better`, perhaps made small."""
    words, config = words_of(variant, file), system()
    if "better" in words:
        better(config)
    if "tiny" in words:
        rehearsal(config)
    return config


def published(size: str):
    """A run of a published model, over four devices as the public demo has them."""
    config = base.base()
    config.seed = 42
    config.model.update(path=PATHS[size], size=size, **IN_BFLOAT16)
    config.mesh.update(fsdp=1, tp=4)
    return config


def on_gsm8k(size: str, template: str):
    """The same on GSM8K."""
    config = published(size)
    config.data.update(
        source="gsm8k", train="data/gsm8k/train.jsonl", test="data/gsm8k/test.jsonl",
        template=template, max_prompt=256, buckets=(256,), min_kept=0.99,
    )  # fmt: skip
    return config


def tunix_grpo(**fields):
    """A GRPO stage with the loss of google-tunix 0.1: token mean, k3, deviation + 1e-4."""
    grpo = base.grpo()
    grpo.update(evaluate_every=0, checkpoint_every=500, **fields)
    grpo.lora.update(rank=64, alpha=64.0, targets=LAYERS)
    grpo.loss.update(
        clip_low=0.2, clip_high=0.2, eps=1e-4, aggregation="token", kl="k3", kl_coef=0.08
    )
    return grpo


def domain_grpo(*, rank: int, **fields):
    """The GRPO stage of a domain's config: four prompts, an adapter, and a light hold."""
    grpo = base.grpo()
    grpo.update(prompts=4, **fields)
    grpo.lora.update(rank=rank, alpha=float(rank), targets=LAYERS)
    grpo.loss.update(kl="k3", kl_coef=0.04)
    grpo.optimizer.update(learning_rate=5e-6, schedule="cosine", final=0.1, clip_norm=0.1)
    return grpo


def demo_optimizer(optimizer, rate: float = 3e-6):
    """The AdamW of the public demo, whose cosine ends with the stage."""
    optimizer.update(
        learning_rate=rate, schedule="cosine", warmup=0.1, final=0.0, schedule_updates=None,
        b1=0.9, b2=0.99, weight_decay=0.1, clip_norm=0.1,
    )  # fmt: skip


def demo_rewards(rewards):
    """The four functions of the public demo, summed."""
    rewards.demo_exact_format = base.reward(1.0, 0.0, 3.0)
    rewards.demo_approximate_format = base.reward(1.0, -2.0, 2.0)
    rewards.demo_answer = base.reward(1.0, -1.0, 3.0)
    rewards.demo_numbers = base.reward(1.0, 0.0, 1.5)


def evaluation(*policies: str, **fields):
    """An evaluation stage of these policies, greedy unless `fields` say otherwise."""
    stage = base.evaluate()
    stage.update(policies=policies, max_new_tokens=512, **fields)
    return stage


def right_in_form(rewards):
    """Rewards in which a right answer outweighs the form, without which it counts for less.

    1.0 for the gold's number times the share of tags in place, and 0.2 times that share.
    """
    rewards.tag_format = base.reward(0.2, 0.0, 1.0)
    rewards.correct_answer = base.reward(1.0, 0.0, 1.0, gate="tag_format", strict=False)


def equations(weight: float):
    """Checkpoints as equations, in the strict form; without the answer three tenths at most."""
    return base.reward(
        weight, 0.0, 1.0, gate="strict_format",
        match="equation", wrong=0.1, cap=0.3, without=0.0, strict=True,
    )  # fmt: skip


def mended_data(config):
    """Golds as numbers, the model's turn as its chat template begins it, a part to validate on."""
    config.data.update(strip_commas=True, template="s1_repo", validation_examples=256)
    config.evaluation.update(split="validation", examples=256, batch=128, max_new_tokens=512)


def mended_grpo(grpo, examples: int = 7472):
    """Groups of eight, none of equal rewards, a schedule that ends, the best checkpoint kept.

    As many completions as groups of four of each of the `examples` make; eight at a time go through
    the model, since 64 of a long stage would save more for the backward pass than a chip has.
    """
    grpo.update(iterations=examples // 16, prompts=8, group=8, dynamic_sampling="drop")
    grpo.microbatches = 8
    grpo.update(evaluate_every=100, checkpoint_every=100)
    demo_optimizer(grpo.optimizer, grpo.optimizer.learning_rate)


def mended_evaluation(stage):
    """All test problems, beside the base as its own chat template asks it."""
    stage.update(examples=None, baselines=(0,))
