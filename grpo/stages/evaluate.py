"""Evaluation: accuracy of policies of the run on test examples, side by side.

Greedy completions are read in three ways, with Wilson intervals; from several samples of each
problem come pass@k and maj@k (grpo/evaluation/metrics.py). Results are written policy by policy:
one that is there is not measured again.
"""

import json

from grpo.evaluation.evaluate import evaluate_greedy, evaluate_samples
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.storage.journal import Journal
from grpo.storage.manifest import write_json


def evaluate(run: Run, name: str, policies: Policies) -> None:
    """Measures what is not yet measured."""
    config = run.config["stages"][name]
    examples = run.data.test[: config["examples"]]
    common = {"batch": config["batch"], "max_new_tokens": config["max_new_tokens"]}
    file = run.workdir / "evaluations" / f"{name}.json"
    journal, metrics = Journal(file.with_suffix(".jsonl")), run.journal("metrics")
    results = json.loads(file.read_text("utf-8")) if file.exists() else {}
    journal.keep(lambda row: row["policy"] in results)
    metrics.keep(lambda row: row["stage"] != name or row["policy"] in results)
    for number, label in enumerate(config["policies"], start=1):
        if label not in results:
            policy = policies.end(label)
            told, rows = {}, []
            if config["greedy"]:
                told, rows = evaluate_greedy(run, policy, examples, **common)
            if config["samples"]:
                more, sampled = evaluate_samples(
                    run, policy, examples, samples=config["samples"],
                    sampling=config["sampling"], ks=config["ks"], **common,
                )  # fmt: skip
                told, rows = {**told, **more}, [*rows, *sampled]
            for row in rows:
                journal.write({"policy": label, **row})
            metrics.write({"stage": name, "policy": label, **told})
            results[label] = told
            write_json(file, results)
        shown = results[label].get("accuracy/strict", results[label].get("sampled/accuracy/strict"))
        facts = {"policy": label, "right": f"{shown:.1%}"}
        run.progress.update(name, number, len(config["policies"]), facts)
