"""A small Gemma 3 learns to show its working, by GRPO, on two CPU cores in a few minutes.

    python launch.py --config=configs/tiny.py

No download, no account, no accelerator: data, tokenizer and weights are made here. Of the worked
solutions that supervised training sees, most state the result without working ("so 7"), as people
do; reasoning step by step would be right far more often, and the model can do it. Nothing but the
reward for right answers tells it to.

:controls adds, from the same end of supervised training, more of it for as long as GRPO takes, and
GRPO with rewards shuffled over the completions.
"""

from configs import base


def get_config(variant: str = ""):
    """The experiment; `variant` is "" or "controls"."""
    if variant not in ("", "controls"):
        raise ValueError(f"variant {variant!r} of configs/tiny.py: expected controls, or none")
    config = base.base()
    config.model.update(size="gemma3_micro", unroll=3)
    config.model.whole = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
    config.data.update(
        levels=(2,), worked=0.35, train_examples=6000, validation_examples=200,
        test_examples=400, template="plain", max_prompt=38, buckets=(38,),
    )  # fmt: skip
    config.evaluation.update(split="validation", examples=200, batch=128, max_new_tokens=32)

    sft = base.sft()
    sft.update(steps=340, batch=64, max_target=31, microbatches=4)
    sft.optimizer.update(learning_rate=3e-3, schedule="cosine", final=0.1)
    config.stages.sft = sft

    config.stages.grpo = grpo = base.grpo()
    grpo.update(iterations=50, prompts=16, group=8, max_new_tokens=32, microbatches=8)
    grpo.update(evaluate_every=10, checkpoint_every=25)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=True)
    grpo.optimizer.update(learning_rate=1e-4, warmup=0.05)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("sft", "grpo"), batch=128, max_new_tokens=32, samples=8, ks=(1, 8))
    config.pipeline = ("sft", "grpo", "evaluate")

    if variant == "controls":
        config.stages.more_sft = more_sft = sft.copy_and_resolve_references()
        more_sft.update(start="sft", steps=180, evaluate_every=36)
        config.stages.shuffled = shuffled = grpo.copy_and_resolve_references()
        shuffled.update(start="sft", shuffle_rewards=True)
        config.stages.controls = controls = evaluate.copy_and_resolve_references()
        controls.policies = ("sft", "grpo", "more_sft", "shuffled")
        config.pipeline += ("more_sft", "shuffled", "controls")
    return config
