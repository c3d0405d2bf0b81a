"""In the style of G-RaR: Gemma-2-2B-it, graded by Gemma-3-12B-it against rubrics (S6).

    python launch.py --config=configs/rar_gemma2_2b.py                  # as far as it is known
    python launch.py --config=configs/rar_gemma2_2b.py:better           # a rubric of each question
    python launch.py --config=configs/rar_gemma2_2b.py:tiny             # a rehearsal on a CPU
    python launch.py --config=configs/rar_gemma2_2b.py --preflight      # does it fit?

First place of Kaggle's Tunix hackathon, of which the organisers' blog says: supervised training
with an adapter on about 33 thousand examples, then GRPO by the form, the exact answer and "G-RaR",
a judge of Gemma-3-12B whose "discrete rubric scores" become "continuous, normalized reward
signals"; policy and judge each on half of a v5e-8. No weights, data, numbers or scores are
published: **every number here is this project's**. The method is Rubrics as Rewards
(arXiv:2507.17746), implicit: all criteria in one prompt, one rating.

**Not run on the published weights by this project**, only traced at its full shapes (--preflight).

Here: 500 supervised updates on GSM8K's solutions, then GRPO by three rewards of weight 1 within
[0, 1]: strict form, exact answer, and the judge's rating from 1 to 9, as its probabilities expect
it. The rubric is of four general criteria (grpo/judges/rubrics.py). The judge reads text: its
tokenizer is another one than the policy's. Weights: google/gemma-2-2b-it and google/gemma-3-12b-it
of the Hub; data: GSM8K (MIT), as configs/_common.py says. Devices: policy and reference on four,
2 x 2, the judge on the other four; it reads a batch while the policy samples the next one, which is
one update off (`staleness`).

Preflight for v5e:2x4 (docs/preflight.md: estimates, never timed), in part: a supervised update 2.55
of 15.75 GiB of a chip and 1.60 s, bound by interconnect, all of them 13.3 minutes; with
model.frozen_weights=whole 3.82 GiB and 0.75 s. The judge 6.57 GiB of its chips and 1.41 s for 16
completions, 23.5 minutes in 1000 iterations, while the policy samples: a rollout 4.70 GiB and 3.63
s, bound by compute, 1.01 h. GRPO's update and log-probs and the evaluation are not compiled yet.

Deviation: the judge's ratings end with 9, as Gemma has no token for 10.

Known flaw, kept: the rating is paid without the form as well. :better gates it by the form, halves
its weight, takes groups of eight that differ, and gives each question a rubric of its own: the
steps that its worked solution passes through, GSM8K's calculator annotations. A second judge, by
the four general criteria one at a time, is not trained by: where the first one rises and the second
does not, the policy has learnt to please. It also grades trace and answer of both policies at the
end, out of 10, as the hackathon's entries were graded.

:tiny (and :better,tiny): three layers, random weights, the arithmetic world. The judge is trained
first, from the end of the policy's supervised training, to find the steps of the worked solution
one by one (grpo/data/finding.py): the rubric is the solution's equations, which is the explicit
mode, and of which the last one has the answer in it. It sees no question. It and the form are the
only rewards: nothing compares answers. `shuffled`, the control, is the same GRPO with the rewards
shuffled over the completions. Both models are small Gemma 3, so that one can begin with the other.
What the policy learns by it is above all to show its working: the known flaw of finding.py.
"""

from configs import _common, _rehearsal, base


def get_config(variant: str = ""):
    """The experiment; `variant` has better, tiny, both with a comma between, or is ""."""
    return _common.variant_of(variant, "rar_gemma2_2b", system, better, rehearsal)


def system():
    """Supervised training, then GRPO by form, answer and a judge."""
    config = _common.on_gsm8k("gemma2_2b", template="reasoning_tags")
    config.mesh.update(fsdp=2, tp=2)
    config.meshes.judge = base.mesh(fsdp=2, tp=2, first=4)
    config.models.judge = base.model(
        path="google/gemma-3-12b-it", size="gemma3_12b", **_common.IN_BFLOAT16
    )
    config.judges.rubric = base.judge(model="judge", max_prompt=1280, batch=16)

    config.stages.sft = sft = base.sft()
    sft.update(steps=500, batch=16, max_target=512, microbatches=8)
    sft.lora.update(rank=64, alpha=64.0, targets=_common.LAYERS)
    sft.optimizer.update(learning_rate=2e-5, schedule="cosine", final=0.1)

    config.stages.grpo = grpo = _common.tunix_grpo(
        iterations=1000, prompts=4, group=4, max_new_tokens=512, microbatches=2
    )
    grpo.staleness = 1
    _common.demo_optimizer(grpo.optimizer)
    grpo.rewards.strict_format = base.reward(1.0, 0.0, 1.0)
    grpo.rewards.correct_answer = base.reward(1.0, 0.0, 1.0, strict=True)
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="rubric")

    config.stages.greedy = _common.evaluation("base", "sft", "grpo")
    config.pipeline = ("sft", "grpo", "greedy")
    return config


def better(config):
    """A rubric of each question behind the form, below the answer; a second judge looks on."""
    config.judges.look_on = base.judge(
        model="judge", prompt="criterion", scale="yes_no", max_prompt=1280, batch=16
    )
    config.judges.rubric.rubric = "steps"
    grpo = config.stages.grpo
    grpo.update(group=8, dynamic_sampling="drop")
    grpo.rewards.strict_format = base.reward(0.2, 0.0, 1.0)
    grpo.rewards.judged = base.reward(0.5, 0.0, 1.0, gate="strict_format", judge="rubric")
    grpo.rewards.held_out_judged = base.reward(0.0, 0.0, 1.0, judge="look_on")
    config.stages.greedy.baselines = (0,)
    config.stages.grades = grades = base.grade()
    grades.update(policies=("sft", "grpo"), judges=("look_on",), batch=32, max_new_tokens=512)
    config.pipeline = ("sft", "grpo", "greedy", "grades")


def rehearsal(config):
    """The same in small, with a judge that is trained here, beside shuffled rewards."""
    _rehearsal.in_small(config, max_prompt=56, worked=0.4)
    _rehearsal.judge_of_steps(config)
    _rehearsal.small_sft(config.stages.sft, steps=260)
    _rehearsal.judged_in_small(config, start="sft")
    if "grades" in config.stages:
        del config.stages["grades"]  # the small judge knows no rubric
    _rehearsal.small_evaluation(config.stages.greedy, "sft", "grpo", "shuffled")
    config.pipeline = ("sft", "judge", "grpo", "shuffled", "greedy")
