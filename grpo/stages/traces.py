"""Worked solutions that a policy writes to training questions, for supervised training (S11).

    for each of `samples` seeds: each question without a solution is asked once more; of the replies
    the first one is kept that has the form, the right answer and enough checkpoints, and is not too
    long (grpo/judges/teacher.py, collecting.py)

With a larger or an instructed model it is teacher data; with the policy's own predecessor, asked as
it is trained, it is rejection sampling from itself (STaR, arXiv:2203.14465; RFT, 2308.01825). What
there is stands in traces/<stage>/ of the run: traces.jsonl, which a later stage of supervised
training names in `solutions`, and a later run as a dataset of source "traces"; dropped.jsonl, why
questions have none; replies.jsonl. The questions are the first `examples` of the training split.

Deviation: RFT keeps several solutions of a question; here it is one, the first, so that easy
questions do not outweigh hard ones. Flaw: a right answer says nothing of the way there, but that
its equations, of which the checkpoints are made, hold.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from grpo.checks.rules import COUNT, FROM_0, SAMPLING, SHARE, TEXT, one_of, optional
from grpo.data.datasets import buckets_for
from grpo.data.templates import prompt_ids
from grpo.judges.collecting import Collected
from grpo.judges.teacher import WAYS
from grpo.rollout.generate import sampling_programs
from grpo.runs.policies import Policies
from grpo.runs.policy_teacher import asked_by, policy_samples
from grpo.runs.run import Run
from grpo.runs.shapes import model_shapes
from grpo.runs.traces import LONG, LONG_PROMPT, REPLIES, TRACES, Wanted, about, gather, keep
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
REASONS = ("form", "wrong", "checkpoints", LONG, "repeated", LONG_PROMPT)
FIELDS = {
    **SAMPLING,
    "data": optional(TEXT),
    "policy": TEXT,
    "ask": one_of(*WAYS),
    "examples": optional(COUNT),
    "batch": COUNT,
    "samples": COUNT,
    "max_prompt": optional(COUNT),
    "max_new_tokens": COUNT,
    "max_target": COUNT,
    "checkpoints": FROM_0,
    "min_kept": SHARE,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """Samples that differ, and room for what is asked."""
    if stage["samples"] > 1 and stage["sampling"]["temperature"] == 0:
        yield f"sampling.temperature=0: the {stage['samples']} samples would be the same"
    if stage["ask"] == "instructed" and stage["max_prompt"] is None:
        yield "max_prompt=None: the instruction adds to the questions: name the tokens of both"


def bucket_of(stage: Config, config: Config) -> int:
    """The tokens of the longest prompt that is asked, to which all are padded."""
    return stage["max_prompt"] or buckets_for(config, stage["data"])[-1]


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The rollouts."""
    stage = config["stages"][name]
    return sampling_programs(
        model_shapes(config, stage["policy"], policy), (bucket_of(stage, config),),
        prompts=stage["batch"], sampling=stage["sampling"], group=1,
        max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs at most: until each question has a solution."""
    stage = config["stages"][name]
    if stage["examples"] is None:
        return {"decoding weights": 1, "rollout": None}
    batches = -(-stage["examples"] // stage["batch"])
    return {"decoding weights": 1, "rollout": stage["samples"] * batches}


def run(run: Run, name: str, policies: Policies) -> None:
    """Asks what is not yet answered, a batch of questions at a time, and keeps what is fit."""
    stage, folder = run.config["stages"][name], run.traces(name)
    if (folder / TRACES).exists():
        return
    policy, data = policies.end(stage["policy"]), run.data_of(name)
    examples = data.train[: stage["examples"]]
    bucket, template = bucket_of(stage, run.config), asked_by(stage["ask"], data.template)
    prompt_of = WAYS[stage["ask"]].prompt_of
    wanted = Wanted(
        way=stage["ask"], checkpoints=stage["checkpoints"], max_target=stage["max_target"],
        # By the tokenizer of those who are to learn from them.
        tokenizer=policies.base.own_tokenizer, template=data.template,
        fits=lambda example: len(
            prompt_ids(policy.own_tokenizer, {"question": prompt_of(example)}, template)
        ) <= bucket,
    )  # fmt: skip
    samples = policy_samples(
        policy, folder / REPLIES, template=template, sampling=stage["sampling"],
        max_new_tokens=stage["max_new_tokens"], seed=run.seed, samples=stage["samples"],
        bucket=bucket, batch=stage["batch"],
    )  # fmt: skip
    metrics, found = run.journal("metrics"), Collected({}, {}, Counter())
    most = stage["samples"] * -(-len(examples) // stage["batch"])
    # All batches are gone through again on resuming, those that are done out of the recording.
    done = sum(row["stage"] == name for row in metrics.rows())
    for step, found in enumerate(gather(examples, samples, wanted, batch=stage["batch"]), start=1):
        shares = shares_of(found, len(examples))
        if step > done:
            metrics.write({"stage": name, "step": step, **shares})
        run.progress.update(name, step, most, shares)
        run.stop.check()
    for line in about(found, len(examples)):
        run.progress.say(f"{name}: {line}")
    keep(folder, examples, found, stage["min_kept"], f"stages.{name}: questions with a solution")


def shares_of(found: Collected, questions: int) -> dict[str, float]:
    """The questions that have a solution by now, and those without by the reason of the last."""
    counts = {
        "kept": len(found.kept),
        **dict.fromkeys(REASONS, 0),
        **Counter(found.dropped.values()),
    }
    return {f"traces/{what}".replace(" ", "_"): n / questions for what, n in counts.items()}
