"""Thinking in Tokens: Gemma-3-1B-it is paid for the checkpoints that its reasoning passes (S11).

    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py               # as published
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py:better        # by equations
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py:traces        # a teacher's
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py:star          # and its own
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py:tiny          # on a CPU
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py:star,tiny     # the same
    python launch.py --config=configs/thinking_in_tokens_gemma3_1b.py --preflight   # does it fit?

In the style of abhay-arora.com/case-study-tunix, its author's own account. Of it: 500 updates of
SFT on a teacher's solutions, GRPO with groups of 4 and an adapter of rank 32, α 16; rewards for the
form, for the outcome, and 0.2 for each checkpoint text that is found in the reasoning; examples of
at most 256 tokens asked and 512 written, longer ones dropped. Not said: learning rates, KL,
clipping, temperature, how much form and outcome weigh, how long GRPO took, what its "MPO" is. These
are configs/grpo_demo_gemma3_1b.py's here, with form and outcome worth 1 each; one epoch of GRPO.

**Not run on the published weights by this project**, only traced at its full shapes (--preflight).
The author reports 91.0 % in "full format" on 849 unseen questions, and no accuracy of the answers.

Needs google/gemma-3-1b-it of the Hub (accept its licence), GSM8K (MIT) as
configs/grpo_demo_gemma3_1b.py says, and four devices (mesh 1 x 4). Hours: about those of that
config, which took 2 h 35 min for as many updates of as many tokens; not measured.

Deviations:
- The teacher's data (DeepSeek-V3; maths, code, science) are not published. GSM8K stands in, whose
  calculator annotations are its checkpoints: 3.17 a row, none in 95 rows, nine at most. Or have a
  teacher of yours write such data, and take :traces (below).
- A microbatch of 1 and a minibatch of 4 are taken as 4 examples of SFT and 4 prompts of GRPO for an
  update, in 4 parts.

Flaws, kept: "20-17" is found in "120-170", "4 * 2 = 8" is not found in "4*2=8", the order is free,
questions with more checkpoints pay more, and a list of all sums that may be asked for is rewarded.
GSM8K's own rationales earn 0.086 a row, less than half a checkpoint: they write "48/2 = 24".

:traces has both stages learn from a teacher's solutions, with the checkpoints that it names (forty
at most); the test stays GSM8K's. The solutions are made before, of a server's model or one here:

    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k --samples=4 \\
        --url=https://api.deepseek.com/v1 --model=deepseek-chat --key=TEACHER_KEY \\
        --tokenizer=DIRECTORY_OF_THE_WEIGHTS --out=data/traces
    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k --samples=4 \\
        --policy=google/gemma-3-4b-it --out=data/traces

:star puts between SFT and GRPO a round of rejection sampling: each training question up to four
times, SFT on the policy's own right solutions whose equations hold, one a question, at least one
equation in each (grpo/stages/traces.py). It is this project's, and not the system's.

:better reads checkpoints and reasoning as equations (grpo/rewards/checkpoints.py): in order, each
at most once, as a share of the question's own; each false equation costs a tenth; without the right
answer three tenths of it are left, which stays below what the answer is worth; and all of it only
in the strict form. Groups that are all alike are left out.

:tiny (and :better,tiny): three layers, random weights, the arithmetic world, a third of whose
solutions show their working; `more_sft` is the control, without any reward. :star,tiny sets teacher
data -> SFT -> GRPO beside as many updates of the world's own solutions, and the same GRPO after
these (`alone`). Solutions without working have no checkpoints, so it also chooses those with.
"""

from configs import _common, _rehearsal, base

MOST = 9  # checkpoints of a row of GSM8K
TEACHERS_MOST = 40  # of a teacher's solution: grpo/judges/teacher.py


def get_config(variant: str = ""):
    """The experiment; `variant` has some of star, traces, better, tiny, or is ""."""
    words = _common.words_of(variant, "thinking_in_tokens_gemma3_1b", "star", "traces")
    if {"traces", "tiny"} <= set(words):
        raise ValueError(f"variant {variant!r}: a teacher's file has no rehearsal: take star,tiny")
    config = system()
    for word, change in {"traces": traces, "star": star, "better": better}.items():
        if word in words:
            change(config)
    if "tiny" in words:
        rehearsal(config)
    return config


def system():
    """500 updates of supervised training, then GRPO with form, checkpoints and outcome."""
    config = _common.on_gsm8k("gemma3_1b", template="reasoning_tags")
    adapter = {"rank": 32, "alpha": 16.0, "targets": _common.LAYERS}

    config.stages.sft = sft = base.sft()
    sft.update(steps=500, batch=4, microbatches=4, max_target=512)
    sft.lora.update(adapter)
    sft.optimizer.update(learning_rate=2e-5, schedule="cosine", final=0.0)

    config.stages.grpo = grpo = base.grpo()
    grpo.update(iterations=1868, prompts=4, group=4, microbatches=4, max_new_tokens=512)
    grpo.update(evaluate_every=0, checkpoint_every=500)
    grpo.sampling.update(temperature=0.9, top_k=50)
    grpo.lora.update(adapter)
    grpo.loss.update(aggregation="token", kl="k3", kl_coef=0.08)
    grpo.optimizer.update(
        learning_rate=3e-6, schedule="cosine", final=0.0, b2=0.99, weight_decay=0.1, clip_norm=0.1
    )
    grpo.rewards.strict_format = base.reward(1.0, 0.0, 1.0)
    grpo.rewards.checkpoints_substring = base.reward(1.0, 0.0, 0.2 * MOST)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=False)

    config.stages.evaluate = evaluate = base.evaluate()
    evaluate.update(policies=("base", "sft", "grpo"), batch=100, max_new_tokens=512)
    config.pipeline = ("sft", "grpo", "evaluate")
    return config


def traces(config):
    """A teacher's solutions and checkpoints, as the command has left them."""
    config.datasets.traces = base.dataset(
        source="traces", train="data/traces/traces.jsonl", columns=_common.TRACES,
        template=config.data.template, max_prompt=256, min_kept=0.99,
    )  # fmt: skip
    config.stages.sft.data = config.stages.grpo.data = "traces"
    config.stages.grpo.rewards.checkpoints_substring.high = 0.2 * TEACHERS_MOST


def star(config):
    """SFT once more, on right solutions of its own."""
    stages = config.stages
    stages.own = own = base.traces()
    own.update(policy="sft", samples=4, max_new_tokens=512, max_target=512)
    own.sampling.update(stages.grpo.sampling)
    stages.star = stages.sft.copy_and_resolve_references()
    stages.star.update(start="sft", data=None, solutions="own")
    stages.evaluate.policies = ("base", "sft", "star", "grpo")
    config.pipeline = ("sft", "own", "star", "grpo", "evaluate")


def better(config):
    """Checkpoints as equations, below the answer; form as a gate."""
    grpo = config.stages.grpo
    del grpo.rewards.checkpoints_substring
    grpo.rewards.strict_format = base.reward(0.2, 0.0, 1.0)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, gate="strict_format", strict=False)
    grpo.rewards.checkpoints_equations = _common.equations(0.5)
    grpo.dynamic_sampling = "drop"
    config.stages.evaluate.update(baselines=(0,))


def rehearsal(config):
    """The same with a small model, beside more SFT."""
    _rehearsal.beside_more_sft(
        config, sft=340, grpo=40, more=60, tokens=32, levels=(2,), worked=0.35, max_prompt=38
    )
    if "star" in config.stages:
        star_in_small(config)


def star_in_small(config):
    """Own solutions to a sixth of the questions, and a shorter GRPO after them and without."""
    stages = config.stages
    stages.own.update(examples=1000, batch=128, max_new_tokens=32, max_target=32)
    stages.own.sampling.update(temperature=1.0, top_k=0)
    stages.star = _rehearsal.more_sft(steps=stages.more_sft.steps, tokens=32, start="sft")
    stages.star.solutions = "own"
    stages.grpo.update(iterations=16, start="star")
    stages.grpo.evaluate_every = 8
    stages.alone = stages.grpo.copy_and_resolve_references()
    stages.alone.start = "more_sft"
    policies = ("sft", "star", "grpo", "more_sft", "alone")
    stages.evaluate.policies = policies
    config.pipeline = ("sft", "own", "star", "grpo", "more_sft", "alone", "evaluate")
