"""Evaluation: accuracy of policies of the run on the same examples, side by side.

Greedy completions are read in four ways, with Wilson intervals; from several samples of each
problem come mean@n, pass@k and maj@k (grpo/evaluation/metrics.py). Baselines are the base, asked as
its chat template has it, with worked examples or without (grpo/data/baselines.py). Results are
written policy by policy: one that is there is not measured again.

evaluations/<stage>.json has the shares by policy, and below `domains` those by domain, where
examples say one; <stage>.jsonl every completion, and with the first one of each problem what
exactly was asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo.algorithms.decoding import resolve_decoding, sampling_of, seed_of
from grpo.checks.rules import COUNT, DECODING, FLAG, FROM_0, TEXT, one_of, optional, several
from grpo.data.baselines import baseline_buckets, baseline_template, label_of
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
from grpo.evaluation.metrics import by_domain
from grpo.rollout.generate import sampling_programs
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.storage.journal import Journal
from grpo.storage.manifest import write_json
from grpo.storage.whole import read_object
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
FIELDS = {
    **DECODING,
    "data": optional(TEXT),
    "split": one_of(*SPLITS),
    "policies": several(TEXT),
    "baselines": several(FROM_0, least=0),
    "baseline_prompt": optional(COUNT),
    "examples": optional(COUNT),
    "batch": COUNT,
    "max_new_tokens": COUNT,
    "greedy": FLAG,
    "samples": FROM_0,
    "ks": several(COUNT),
    "shown": FROM_0,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """Something to do, samples that may differ and that the ks allow, baselines that can be."""
    if not stage["greedy"] and not stage["samples"]:
        yield "samples=0: with greedy=False there is nothing to do"
    if stage["samples"] and max(stage["ks"]) > stage["samples"]:
        yield f"ks={stage['ks']}: the largest is more than samples={stage['samples']}"
    if stage["samples"] > 1 and sampling_of(stage["sampling"])["temperature"] == 0:
        yield (
            f"samples={stage['samples']}: at sampling.temperature=0 "
            f"(preset={stage['sampling']['preset']!r}) all of a problem would be the same: use 1"
        )
    yield from about_baselines(stage)


def about_baselines(stage: Config) -> Iterator[str]:
    """Each once, with a length for prompts with shots, and none that shows its own answer."""
    baselines, length = stage["baselines"], stage["baseline_prompt"]
    if len(set(baselines)) < len(baselines):
        yield f"baselines={baselines}: one is there twice"
    if any(baselines) and length is None:
        yield (
            f"baseline_prompt=None: baselines={baselines} need it: the tokens of the longest "
            "prompt, shots among them"
        )
    if not any(baselines) and length is not None:
        yield f"baseline_prompt={length}: no baseline has shots: set it to None"
    if any(baselines) and stage["split"] == "train":
        yield "split='train': shots of baselines are training examples: use another split"


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The rollouts of a policy; those of the others are the same where adapters are merged."""
    stage = config["stages"][name]
    programs = rollouts(stage, policy, buckets_for(config, stage["data"]))
    if shots := max(stage["baselines"], default=0):
        longer = rollouts(stage, policy, baseline_buckets(config, stage, shots))
        programs |= {f"{program} with shots": one for program, one in longer.items()}
    return programs


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs: for every policy, and for the baselines."""
    stage, found = config["stages"][name], dict[str, int | None]()
    shots = sum(n > 0 for n in stage["baselines"])
    examples = stage["examples"]
    for longer, policies in (
        ("", len(stage["policies"]) + len(stage["baselines"]) - shots),
        (" with shots", shots),
    ):
        for what, prompts in (
            ("", stage["batch"]),
            (" of samples", prompts_of(stage["batch"], stage["samples"] or 1)),
        ):
            found[f"decoding weights{what}{longer}"] = policies
            found[f"rollout{what}{longer}"] = (
                None if examples is None else policies * -(-examples // prompts)
            )
    return found


def rollouts(stage: Config, policy: Policy, buckets: Sequence[int]) -> dict[str, Program]:
    """What a policy runs for prompts of these lengths."""
    batch, C = stage["batch"], stage["max_new_tokens"]
    programs: dict[str, Program] = {}
    if stage["greedy"]:
        examples = stage["examples"] or batch
        programs |= greedy_programs(
            policy, buckets, examples=examples, batch=batch, max_new_tokens=C
        )
    if samples := stage["samples"]:
        sampled = sampling_programs(
            policy, buckets, prompts=prompts_of(batch, samples),
            sampling=sampling_of(stage["sampling"]), group=samples, max_new_tokens=C,
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
    results = read_object(file)
    journal.keep(lambda row: row["policy"] in results)
    metrics.keep(lambda row: row["stage"] != name or row["policy"] in results)
    asked = settings(run, name)
    for number, (label, setting) in enumerate(asked.items(), start=1):
        if label not in results:
            policy = policies.end(label if label in stage["policies"] else "base")
            found, rows = measured(policy, examples, stage, setting)
            for row in rows:
                journal.write({"policy": label, **row})
            journal.require_whole()
            metrics.write({"stage": name, "policy": label, **found})
            domains = by_domain(rows[: len(examples)] if stage["greedy"] else rows)
            results[label] = {**found, **({"domains": domains} if domains else {})}
            write_json(file, results)
        shown = results[label].get("accuracy/strict", results[label].get("sampled/accuracy/strict"))
        facts = {"policy": label, "right": f"{shown:.1%}"}
        run.progress.update(name, number, len(asked), facts)


def settings(run: Run, name: str) -> dict[str, Setting]:
    """How each row of the table is asked, by its label: baselines first."""
    stage, data = run.config["stages"][name], run.data_of(name)
    own = run.setting(data)
    baselines = {
        label_of(shots): own._replace(
            template=baseline_template(data, shots),
            buckets=baseline_buckets(run.config, stage, shots),
        )
        for shots in stage["baselines"]
    }
    return {**baselines, **dict.fromkeys(stage["policies"], own)}


def measured(
    policy: Policy, examples: Sequence[Example], stage: Config, setting: Setting
) -> tuple[dict[str, float], Rows]:
    """The metrics of a policy, and a row for each of its completions, the greedy ones first."""
    common = {"batch": stage["batch"], "max_new_tokens": stage["max_new_tokens"]}
    metrics: dict[str, float] = {}
    rows: Rows = []
    if stage["greedy"]:
        metrics, rows = evaluate_greedy(policy, examples, setting, **common)
    if stage["samples"]:
        decoding = resolve_decoding(stage["sampling"])
        more, sampled = evaluate_samples(
            policy, examples, setting._replace(seed=seed_of(decoding, setting.seed)),
            samples=stage["samples"], sampling=sampling_of(decoding), ks=stage["ks"], **common,
        )  # fmt: skip
        metrics, rows = {**metrics, **more}, [*rows, *sampled]
    return metrics, rows
