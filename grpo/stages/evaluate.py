"""Evaluation: accuracy of policies of the run on the same examples, side by side.

Greedy completions are read in three ways, with Wilson intervals; from several samples of each
problem come pass@k and maj@k (grpo/evaluation/metrics.py). Results are written policy by policy:
one that is there is not measured again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo.checks.rules import COUNT, FLAG, FROM_0, SAMPLING, TEXT, one_of, optional, several
from grpo.data.datasets import SPLITS, buckets_for
from grpo.data.examples import Example
from grpo.evaluation.evaluate import (
    Rows,
    Setting,
    evaluate_greedy,
    evaluate_samples,
    greedy_programs,
    prompts_of,
)
from grpo.rollout.generate import sampling_programs
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.storage.journal import Journal
from grpo.storage.manifest import write_json
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
FIELDS = {
    **SAMPLING,
    "data": optional(TEXT),
    "split": one_of(*SPLITS),
    "policies": several(TEXT),
    "examples": optional(COUNT),
    "batch": COUNT,
    "max_new_tokens": COUNT,
    "greedy": FLAG,
    "samples": FROM_0,
    "ks": several(COUNT),
    "shown": FROM_0,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """Something to do, and ks that the samples allow."""
    if not stage["greedy"] and not stage["samples"]:
        yield "samples=0: with greedy=False there is nothing to do"
    if stage["samples"] and max(stage["ks"]) > stage["samples"]:
        yield f"ks={stage['ks']}: the largest is more than samples={stage['samples']}"


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The rollouts of a policy; those of the others are the same where adapters are merged."""
    stage = config["stages"][name]
    buckets = buckets_for(config, stage["data"])
    batch, C = stage["batch"], stage["max_new_tokens"]
    programs: dict[str, Program] = {}
    if stage["greedy"]:
        examples = stage["examples"] or batch
        programs |= greedy_programs(
            policy, buckets, examples=examples, batch=batch, max_new_tokens=C
        )
    if samples := stage["samples"]:
        sampled = sampling_programs(
            policy, buckets, prompts=prompts_of(batch, samples), sampling=stage["sampling"],
            group=samples, max_new_tokens=C,
        )  # fmt: skip
        programs |= {f"{program} of samples": one for program, one in sampled.items()}
    return programs


def run(run: Run, name: str, policies: Policies) -> None:
    """Measures what is not yet measured."""
    stage = run.config["stages"][name]
    data = run.data_of(name)
    examples = getattr(data, stage["split"])[: stage["examples"]]
    file = run.workdir / "evaluations" / f"{name}.json"
    journal, metrics = Journal(file.with_suffix(".jsonl")), run.journal("metrics")
    results = json.loads(file.read_text("utf-8")) if file.exists() else {}
    journal.keep(lambda row: row["policy"] in results)
    metrics.keep(lambda row: row["stage"] != name or row["policy"] in results)
    for number, label in enumerate(stage["policies"], start=1):
        if label not in results:
            found, rows = measured(policies.end(label), examples, stage, run.setting(data))
            for row in rows:
                journal.write({"policy": label, **row})
            metrics.write({"stage": name, "policy": label, **found})
            results[label] = found
            write_json(file, results)
        shown = results[label].get("accuracy/strict", results[label].get("sampled/accuracy/strict"))
        facts = {"policy": label, "right": f"{shown:.1%}"}
        run.progress.update(name, number, len(stage["policies"]), facts)


def measured(
    policy: Policy, examples: Sequence[Example], stage: Config, setting: Setting
) -> tuple[dict[str, float], Rows]:
    """The metrics of a policy, and a row for each of its completions."""
    common = {"batch": stage["batch"], "max_new_tokens": stage["max_new_tokens"]}
    metrics: dict[str, float] = {}
    rows: Rows = []
    if stage["greedy"]:
        metrics, rows = evaluate_greedy(policy, examples, setting, **common)
    if stage["samples"]:
        more, sampled = evaluate_samples(
            policy, examples, setting, samples=stage["samples"], sampling=stage["sampling"],
            ks=stage["ks"], **common,
        )  # fmt: skip
        metrics, rows = {**metrics, **more}, [*rows, *sampled]
    return metrics, rows
