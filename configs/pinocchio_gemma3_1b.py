"""In the style of Pinocchio-1B: a teacher's traces, SimPO, and GRPO by a judge over HTTP (S7).

    python launch.py --config=configs/pinocchio_gemma3_1b.py               # as far as it is known
    python launch.py --config=configs/pinocchio_gemma3_1b.py:better        # a judge to look on
    python launch.py --config=configs/pinocchio_gemma3_1b.py:tiny          # a rehearsal on a CPU
    python launch.py --config=configs/pinocchio_gemma3_1b.py --preflight   # does it fit?

Second place of Kaggle's Tunix hackathon, of which the organisers' blog says: supervised training
on 70 thousand prompts with solutions of an "OSS-120B" teacher, sorted by a task router; SimPO for
strict tags and against verbosity; GRPO with Gemini 2.0 Flash as a judge of accuracy, logic and
form, "heavily penalising hallucinations"; 9 hours. No weights, data, settings or scores are
published: **every number here is this project's**.

**Not run on the published weights by this project**, only traced at its full shapes (--preflight).

    sft     2187 updates of 32, one pass over 70 thousand traces
    pairs   8 completions for each of 2048 questions: the shortest right one in form against a
            malformed, a wrong and a verbose one
    simpo   128 updates of 32 at 5e-7, which is what SimPO's authors advise for mathematics
    grpo    by the judge alone: (accuracy + logic + form) / 3 - hallucination, each rated from 1 to
            9 by a prompt of its own, within [0, 1] (grpo/judges/rubrics.py)

Data: none is published. `python -m grpo.tools.teach` asks a teacher of yours for such traces and
keeps those that are right; data/pinocchio/traces.jsonl is where they are looked for. What the
router said is their column `domain`. Its terms say whether a teacher's output may be trained on.
The judge is an OpenAI-compatible server of your own; a hosted one by --config.judges.grades.url=
--config.judges.grades.name= --config.judges.grades.key=VARIABLE. What it says is recorded, and
--config.judges.grades.replay= makes the run again without it. Weights: google/gemma-3-1b-it of the
Hub (accept its licence). Devices: 1 x 4.

The judge is asynchronous, as theirs was: it reads a batch while the policy samples the next one,
which is one update off (`staleness`); the ratio corrects for it.

Deviations: ratings end with 9, not 10. A question that no reply comes to has no reward.

Known flaws, kept: nothing is verified, though the traces have answers, and no judge looks on.
:better pays for a right answer first, for the judge's word a half and in strict form only, in
groups of eight that differ; a second server, of another model, is asked and not trained by; SimPO
has the chosen ones' likelihood in its loss, which is to keep answers and form.

:tiny (and :better,tiny): three layers, random weights, the arithmetic world. The judge is trained
first, from the end of supervised training, to find the steps of the worked solution one by one
(grpo/data/finding.py): in the place of four criteria it has those steps, an equation each, and
sees nothing of the question; its known flaw stands there. SimPO is of all parameters at 4e-5. The
judge and the form are the only rewards; `shuffled` is the control.
"""

from configs import _common, _rehearsal, base


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "pinocchio_gemma3_1b", system, better, rehearsal)


def system():
    """Supervised training, SimPO on own pairs, and GRPO by a judge."""
    config = _common.published("gemma3_1b")
    config.data = base.dataset(
        source="traces", train="data/pinocchio/traces.jsonl", columns=_common.TRACES,
        validation_share=0.01, test_share=0.01, template="reasoning_tags", max_prompt=256,
        buckets=(256,),
    )  # fmt: skip
    config.judges.grades = asked("http://localhost:8000/v1", "google/gemma-3-27b-it")
    config.judges.grades.update(prompt="criterion", rubric="pinocchio")
    adapter = {"rank": 64, "alpha": 64.0, "targets": _common.LAYERS}
    stages = config.stages

    stages.sft = sft = base.sft()
    sft.update(steps=2187, batch=32, microbatches=8, max_target=512)
    sft.lora.update(adapter)
    sft.optimizer.update(learning_rate=2e-5, schedule="cosine", final=0.1)

    stages.pairs = pairs = base.pairs()
    pairs.update(policy="sft", prompts=2048, batch=16, group=8, max_new_tokens=512, least=256)
    stages.simpo = simpo = base.preference()
    simpo.update(steps=128, batch=32, microbatches=16, max_completion=512 + 32)
    simpo.lora.update(adapter)
    simpo.loss.preset = "simpo"
    simpo.optimizer.update(learning_rate=5e-7, schedule="cosine", final=0.1)

    stages.grpo = grpo = _common.tunix_grpo(
        iterations=1000, prompts=4, group=4, max_new_tokens=512, microbatches=2
    )
    grpo.staleness = 1
    _common.demo_optimizer(grpo.optimizer)
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grades")
    stages.evaluate = _common.evaluation("base", "sft", "simpo", "grpo")
    config.pipeline = ("sft", "pairs", "simpo", "grpo", "evaluate")
    return config


def asked(url: str, name: str):
    """A judge that answers over HTTP."""
    return base.judge(url=url, name=name, scale="nine", concurrency=16)


def better(config):
    """Right answers first, the judge's word in form only, and a second judge to look on."""
    config.judges.look_on = asked("http://localhost:8001/v1", "openai/gpt-oss-20b")
    config.judges.look_on.update(prompt="overall", rubric="generic")
    config.stages.simpo.loss.sft_coef = 1.0
    grpo = config.stages.grpo
    grpo.update(group=8, dynamic_sampling="drop")
    grpo.rewards.strict_format = base.reward(0.2, 0.0, 1.0)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, gate="strict_format", strict=False)
    grpo.rewards.judged = base.reward(0.5, 0.0, 1.0, gate="strict_format", judge="grades")
    grpo.rewards.held_out_judged = base.reward(0.0, 0.0, 1.0, judge="look_on")
    config.stages.evaluate.baselines = (0,)


def rehearsal(config):
    """The same in small, with a judge that is trained here, beside shuffled rewards."""
    _rehearsal.in_small(config, max_prompt=56, worked=0.45)
    config.data.update(validation_share=0.0, test_share=0.0)
    _rehearsal.judge_of_steps(config)
    stages = config.stages
    _rehearsal.small_sft(stages.sft, steps=260)
    stages.pairs.update(prompts=96, batch=32, max_new_tokens=32, least=16)
    stages.simpo.update(steps=20, batch=16, microbatches=1, max_completion=32 + 8)
    stages.simpo.lora.rank = None
    stages.simpo.optimizer.learning_rate = 4e-5
    _rehearsal.judged_in_small(config, start="simpo")
    _rehearsal.small_evaluation(stages.evaluate, "sft", "simpo", "grpo", "shuffled")
    config.pipeline = ("sft", "pairs", "simpo", "judge", "grpo", "shuffled", "evaluate")
