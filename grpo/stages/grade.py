"""Evaluation by judges: completions of policies of the run, graded from 0 to 10, side by side.

So were entries to Kaggle's Tunix hackathon judged: trace and answer of greedy completions
(temperature 0, top_k 1, seed 42) each by a rubric. There a Gemini model and people did it; here any
of the config's `judges`. Each of `rubrics` takes the place of a judge's own and is one grade of
every completion; the formulas stand in grpo/evaluation/grades.py.

Completions are written policy by policy, replies into judges/<judge>.jsonl batch by batch. What is
there is neither sampled nor asked again, but for what had failed. If more than `max_failed` of a
policy's completions have no verdict, the stage ends with an error, and all that it has is kept.

evaluations/<stage>.json        the metrics by policy
            <stage>.jsonl       every completion, and what exactly was asked of the policy
            <stage>.grades.jsonl    every grade, and the keys of the replies it was made of
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from grpo.algorithms.decoding import resolve_decoding, sampling_of, seed_of
from grpo.checks.rules import COUNT, DECODING, FROM_0, SHARE, TEXT, one_of, optional, several
from grpo.data.datasets import SPLITS, buckets_for
from grpo.data.examples import Example
from grpo.data.nearest import nearest
from grpo.evaluation.evaluate import GRADED_STEP, Rows, completions_of, looks_of
from grpo.evaluation.grades import (
    GradeError,
    grade_metrics,
    grade_rows,
    graded,
    grades_by_domain,
    interval,
    over,
)
from grpo.judges.judging import Verdicts
from grpo.judges.prompts import questions_of
from grpo.judges.rubrics import RUBRICS
from grpo.rollout.generate import sampling_programs
from grpo.runs.judged_reward import judge_of, judge_programs
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.storage.journal import Journal
from grpo.storage.manifest import write_json
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
BY_RUBRIC = ("criterion", "overall")  # prompts in which a rubric has a place
FIELDS = {
    **DECODING,
    "data": optional(TEXT),
    "split": one_of(*SPLITS),
    "policies": several(TEXT),
    "examples": optional(COUNT),
    "batch": COUNT,
    "max_new_tokens": COUNT,
    "judges": several(TEXT),
    "rubrics": several(one_of(*RUBRICS)),
    "max_failed": SHARE,
    "shown": FROM_0,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """Judges that there are, and that ask by a rubric; nothing twice."""
    for field in ("policies", "judges", "rubrics"):
        if len(set(stage[field])) < len(stage[field]):
            yield f"{field}={stage[field]}: one is there twice"
    for name in dict.fromkeys(stage["judges"]):
        if name not in config["judges"]:
            hint = nearest(name, config["judges"])
            yield f"judges={stage['judges']}: {name!r} is none of judges{hint}"
        elif (prompt := config["judges"][name]["prompt"]) not in BY_RUBRIC:
            yield (
                f"judges={stage['judges']}: judges.{name}.prompt={prompt!r} asks by no rubric: use "
                f"{' or '.join(BY_RUBRIC)}"
            )


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The rollouts of a policy, and what judges that are models of ours read prompts with."""
    stage = config["stages"][name]
    programs = sampling_programs(
        policy, buckets_for(config, stage["data"]),
        prompts=min(stage["batch"], stage["examples"] or stage["batch"]),
        sampling=sampling_of(stage["sampling"]), group=1, max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip
    return programs | judge_programs(config, {judge: judge for judge in stage["judges"]}, policy)


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs: every judge reads every completion once for each rubric."""
    stage, examples = config["stages"][name], config["stages"][name]["examples"]
    policies = len(stage["policies"])
    found: dict[str, int | None] = {"decoding weights": policies, "rollout": None}
    if examples is not None:
        found["rollout"] = policies * -(-examples // stage["batch"])
    for judge in stage["judges"]:
        section = config["judges"][judge]
        each = [questions_of(section["prompt"], rubric) for rubric in stage["rubrics"]]
        found[judge] = None
        if examples is not None and None not in each:
            asked = policies * examples * sum(filter(None, each))
            found[judge] = -(-asked // section["batch"])
    return found


def run(run: Run, name: str, policies: Policies) -> None:
    """Grades what is not yet graded."""
    stage, file = run.config["stages"][name], run.workdir / "evaluations" / f"{name}.json"
    if file.exists():
        return
    completions = completed(run, name, policies)
    found: dict[str, dict[str, Verdicts]] = {policy: {} for policy in completions}
    for judge in stage["judges"]:
        for policy, verdicts in grades(run, name, policies, judge, completions):
            found[policy] |= verdicts
    journal, metrics = Journal(file.with_suffix(".grades.jsonl")), run.journal("metrics")
    journal.keep(lambda row: False)
    metrics.keep(lambda row: row["stage"] != name)
    results: dict[str, dict[str, Any]] = {}
    for policy, rows in completions.items():
        right_E = np.array([row["right"]["strict"] for row in rows])
        about = looks_of(rows)
        for title, verdicts in found[policy].items():
            about |= grade_metrics(title, verdicts, right_E)
            others = {other: found[other][title].score_B for other in results}
            about |= over(title, verdicts.score_B, others)
            for row in grade_rows(examples_of(run, name), title, verdicts):
                journal.write({"policy": policy, **row})
        journal.require_whole()
        metrics.write({"stage": name, "policy": policy, **about})
        scores = {title: verdicts.score_B for title, verdicts in found[policy].items()}
        domains = grades_by_domain(rows, scores)
        results[policy] = {**about, **({"domains": domains} if domains else {})}
    write_json(file, results)


def examples_of(run: Run, name: str) -> list[Example]:
    """The examples that are graded."""
    stage = run.config["stages"][name]
    return getattr(run.data_of(name), stage["split"])[: stage["examples"]]


def completed(run: Run, name: str, policies: Policies) -> dict[str, Rows]:
    """A completion of every example, by policy: those that are there, or else new ones."""
    stage, examples = run.config["stages"][name], examples_of(run, name)
    journal = Journal(run.workdir / "evaluations" / f"{name}.jsonl")
    there = Counter(row["policy"] for row in journal.rows())
    journal.keep(lambda row: there[row["policy"]] == len(examples))
    kept, decoding = journal.rows(), resolve_decoding(stage["sampling"])
    setting = run.setting(run.data_of(name))._replace(seed=seed_of(decoding, run.seed))
    found: dict[str, Rows] = {}
    for number, label in enumerate(stage["policies"], start=1):
        found[label] = [row for row in kept if row["policy"] == label]
        if not found[label]:
            found[label] = completions_of(
                policies.end(label), examples, setting, batch=stage["batch"], step=GRADED_STEP,
                sampling=sampling_of(decoding), max_new_tokens=stage["max_new_tokens"],
            )  # fmt: skip
            for row in found[label]:
                journal.write({"policy": label, **row})
            journal.require_whole()
        right = float(np.mean([row["right"]["strict"] for row in found[label]]))
        facts = {"policy": label, "right": f"{right:.1%}"}
        run.progress.update(name, number, len(stage["policies"]), facts)
    return found


def grades(
    run: Run, name: str, policies: Policies, title: str, completions: Mapping[str, Rows]
) -> Iterator[tuple[str, dict[str, Verdicts]]]:
    """What a judge says of all completions: a policy, and its verdicts by judge and rubric."""
    stage = run.config["stages"][name]
    programs = judge_programs(run.config, {title: title}, policies.base)
    judge = judge_of(policies, title, programs.get(title))
    asked = [(policy, rubric) for policy in completions for rubric in stage["rubrics"]]
    for number, (policy, rubric) in enumerate(asked, start=1):
        try:
            verdicts = graded(
                judge._replace(rubric=rubric), examples_of(run, name),
                [row["completion"] for row in completions[policy]], batch=stage["batch"],
                max_failed=stage["max_failed"], check=run.stop.check,
            )  # fmt: skip
        except GradeError as error:
            raise GradeError(
                f"stages.{name}: judge {title}, {rubric} of {policy}: {error}; what was said is "
                "kept: the same command asks the rest once more"
            ) from None
        mean = interval("mean", verdicts.score_B, least=0.0).get("mean")
        said = "no verdicts" if mean is None else f"{mean:.2f} of 10"
        facts = {"judge": title, "policy": policy, rubric: said}
        run.progress.update(name, number, len(asked), facts)
        yield policy, {f"{title}/{rubric}": verdicts}
