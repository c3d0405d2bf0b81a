"""What rehearsals have in common: a model, data and stages for two CPU cores (configs/tiny.py).

`tokens` are those of the longest completion, the end of the turn among them.
"""

from configs import base

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def micro(config, family: str):
    """Random weights of a family's smallest model, on one device."""
    config.model = base.model(size=f"{family}_micro", unroll=3, whole=TAGS)
    config.models, config.meshes = {}, {}
    config.mesh.update(fsdp=1, tp=1)


def on_a_cpu(config, *, max_prompt: int, tokens: int, **data):
    """Random weights of a small Gemma 3, one device, and a world that is made here."""
    micro(config, "gemma3")
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


def beside_more_sft(config, *, sft: int, grpo: int, more: int, tokens: int, **data):
    """So many steps of a warm-up, iterations of the system's GRPO, and steps of its control."""
    on_a_cpu(config, tokens=tokens, **data)
    stages = config.stages
    stages.sft = warm_up(steps=sft, tokens=tokens)
    shorten(stages.grpo, iterations=grpo, tokens=tokens)
    stages.more_sft = more_sft(steps=more, tokens=tokens, start="sft")
    stages.evaluate = side_by_side("sft", "grpo", "more_sft", tokens=tokens)
    config.pipeline = ("sft", "grpo", "more_sft", "evaluate")


# Systems whose stages are kept, and made smaller.


def in_small(config, **data):
    """The arithmetic world and a family's smallest model in place of what must be downloaded."""
    micro(config, config.model.size.partition("_")[0])
    small_data(config.data, **data)
    config.data.buckets = (config.data.max_prompt,)
    config.evaluation.update(examples=100, batch=100, max_new_tokens=32)


def small_data(data, **fields):
    """A dataset of the arithmetic world; a validation split where the system has one."""
    data.update(
        source="arithmetic", train=None, test=None, levels=(2,), worked=0.35, train_examples=6000,
        validation_examples=200 if data.validation_examples else 0, test_examples=200,
        template="plain", max_prompt=38,
    )  # fmt: skip
    data.update(fields)


def small_sft(sft, steps: int = 340):
    """Supervised training of all parameters, as these are random; with the system's schedule."""
    ratio = steps / sft.steps
    sft.lora.rank = None
    sft.update(steps=steps, batch=64, microbatches=4, max_target=31, checkpoint_every=steps)
    sft.optimizer.learning_rate = 3e-3
    if sft.optimizer.schedule_updates:
        sft.optimizer.schedule_updates = round(ratio * sft.optimizer.schedule_updates)


def warmed_up(config, steps: int = 340):
    """Supervised training first, which stands in for what an instruction-tuned model knows."""
    config.stages.sft = sft = base.sft()
    sft.optimizer.update(schedule="cosine", final=0.1)
    small_sft(sft, steps)
    config.pipeline = ("sft", *config.pipeline)


def small_grpo(grpo, iterations: int = 40, rate: float = 1e-3):
    """128 completions an iteration, in groups of the system's size, and its schedule."""
    ratio = iterations / grpo.iterations
    grpo.update(iterations=iterations, prompts=128 // grpo.group, max_new_tokens=32)
    grpo.update(microbatches=8 // grpo.minibatches, checkpoint_every=iterations)
    grpo.evaluate_every = iterations // 2 if grpo.evaluate_every else 0
    grpo.optimizer.learning_rate = rate
    if grpo.optimizer.schedule_updates:
        grpo.optimizer.schedule_updates = round(ratio * grpo.optimizer.schedule_updates)


def small_evaluation(stage, *policies: str):
    """An evaluation of these policies on 200 problems; eight samples where the system has more."""
    stage.update(policies=policies, examples=200, batch=200, max_new_tokens=32, baselines=())
    if stage.samples > 8:
        stage.update(samples=8, ks=tuple(sorted({min(k, 8) for k in stage.ks})))


def judge_of_steps(config):
    """A judge that this run trains, from the end of `sft`, in the place of the system's judges.

    It looks for the steps of the worked solution, as so many made examples teach it
    (grpo/data/finding.py). It is a small Gemma 3, and so is the policy whose end it begins with.
    """
    config.model.update(size="gemma3_micro", whole=(*TAGS, "yes", "no"))
    config.datasets.finding = base.dataset(
        source="finding", train_examples=8960, template="verdict", max_prompt=56
    )
    for judge in config.judges.values():
        judge.update(model="judge", url=None, name=None, prompt="found", rubric="steps")
        judge.update(scale="yes_no", max_prompt=56, batch=128)
    config.stages.judge = judge = warm_up(steps=280, tokens=3, start="sft")
    judge.update(data="finding", batch=32, microbatches=1)


def judged_in_small(config, *, start: str):
    """GRPO by such a judge and the form alone, and the control: the same with rewards shuffled."""
    stages = config.stages
    small_grpo(stages.grpo, iterations=18, rate=3e-4)
    stages.grpo.start = start
    rewards = stages.grpo.rewards
    if "correct_answer" in rewards:
        del rewards.correct_answer  # nothing compares answers
    if "strict_format" not in rewards:
        rewards.strict_format = base.reward(1.0, 0.0, 1.0)
    stages.shuffled = stages.grpo.copy_and_resolve_references()
    stages.shuffled.shuffle_rewards = True
