"""What rehearsals have in common: a model, data and stages for two CPU cores (configs/tiny.py).

`tokens` are those of the longest completion, the end of the turn among them.
"""

from configs import base

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def on_a_cpu(config, *, max_prompt: int, tokens: int, **data):
    """Random weights of a small Gemma 3, one device, and a world that is made here."""
    config.model = base.model(size="gemma3_micro", unroll=3, whole=TAGS)
    config.models = {}
    config.mesh.update(fsdp=1, tp=1)
    section = {
        "train_examples": 6000, "validation_examples": 200, "test_examples": 400,
        "template": "plain", "max_prompt": max_prompt, "buckets": (max_prompt,), **data,
    }  # fmt: skip
    config.data = base.dataset(**section)
    config.evaluation.update(split="validation", examples=200, batch=128, max_new_tokens=tokens)


def warm_up(*, steps: int, tokens: int, start: str = "base"):
    """Supervised training that stands in for the tuning which published weights have had."""
    stage = base.sft()
    stage.update(start=start, steps=steps, batch=64, max_target=tokens, microbatches=4)
    stage.optimizer.update(learning_rate=3e-3, schedule="cosine", final=0.1)
    return stage


def more_sft(*, steps: int, tokens: int, start: str):
    """The control of what came after a warm-up: more of the same data, and no reward."""
    stage = warm_up(steps=steps, tokens=tokens, start=start)
    stage.optimizer.learning_rate = 1e-3
    return stage


def shorten(grpo, *, iterations: int, tokens: int):
    """The GRPO stage of a system with its rewards and loss, and sizes at which something moves."""
    grpo.update(iterations=iterations, prompts=16, group=8, microbatches=8)
    grpo.update(max_new_tokens=tokens, evaluate_every=10, checkpoint_every=25)
    grpo.lora.rank = None
    grpo.optimizer.update(learning_rate=1e-4, warmup=0.05, clip_norm=1.0, weight_decay=0.0)


def side_by_side(*policies: str, tokens: int):
    """What a rehearsal ends with: the ends of its stages on the same test problems."""
    stage = base.evaluate()
    stage.update(policies=policies, batch=128, max_new_tokens=tokens)
    return stage
