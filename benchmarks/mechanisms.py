"""What shows whether a mechanism works: the runs of it, and the tables that are made of them.

Tables have a line for each seed. A run is one of a system's rehearsals, or of controls.py; each has
its control within it: a policy without the mechanism, from the same start.
"""

import json
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from main_job import percent

from configs.thinking_in_tokens_gemma3_1b import get_config
from grpo.data.datasets import load_datasets, sections_of
from grpo.data.examples import Example
from grpo.data.strips import execute
from grpo.evaluation.hacks import scored
from grpo.judges.judging import chance_of_order
from grpo.reporting.progress import table
from grpo.rewards.extract import strict
from grpo.rewards.numbers import same_number
from grpo.rewards.plan import plan, steps_of
from grpo.rewards.table import reward_table
from grpo.storage.journal import read_journal

Seeds = Mapping[str, pathlib.Path]
Runs = Mapping[str, Seeds]  # of each config, by its name
WINDOW = 10  # updates at the beginning and at the end that are compared
EXAMPLES, SEEDS = 100, 3  # test problems for which completions are made, of so many worlds
STUFFED = (  # cases of grpo/evaluation/hack_cases.py
    "checkpoints, the last one first, wrong", "checkpoints, each contradicted, wrong",
    "all small sums, wrong", "checkpoints 20 times, wrong", "all small sums",
    "checkpoints, each contradicted",
)  # fmt: skip


def config_of(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a run."""
    return json.loads((workdir / "config.json").read_text("utf-8"))


def evaluation_in(config: dict[str, Any]) -> str:
    """The last stage of a pipeline that asks greedily, or else its last one."""
    stages = [config["stages"][name] | {"name": name} for name in config["pipeline"]]
    evaluations = [stage for stage in stages if stage["kind"] == "evaluate"]
    greedy = [stage for stage in evaluations if stage["greedy"]]
    return (greedy or evaluations)[-1]["name"]


def evaluation_of(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What that stage measured, by policy."""
    path = workdir / "evaluations" / f"{evaluation_in(config_of(workdir))}.json"
    return json.loads(path.read_text("utf-8"))


def ends(workdir: pathlib.Path, stage: str, metric: str) -> tuple[float, float]:
    """The mean of a metric over the first updates of a stage, and over the last ones."""
    rows = read_journal(workdir / "metrics.jsonl")
    values = [row[metric] for row in rows if row["stage"] == stage and metric in row]
    return statistics.mean(values[:WINDOW]), statistics.mean(values[-WINDOW:])


def arrow(pair: tuple[float, float], digits: int = 2) -> str:
    """Before and after."""
    return " → ".join(f"{x:.{digits}f}" for x in pair)


def share(x: float) -> str:
    """A share as percent."""
    return f"{100 * x:.1f}"


def by_policy(seeds: Seeds, cells: Callable[[str, pathlib.Path, dict], list[str]]) -> list[list]:
    """A line for each seed and policy of the last evaluation."""
    return [
        [seed if n == 0 else "", policy, *cells(policy, workdir, metrics)]
        for seed, workdir in seeds.items()
        for n, (policy, metrics) in enumerate(evaluation_of(workdir).items())
    ]


def greedy_rows(workdir: pathlib.Path) -> Iterator[tuple[dict[str, Any], Example]]:
    """The greedy completions of the last evaluation, each with its example."""
    config = config_of(workdir)
    stage = evaluation_in(config)
    data = load_datasets(sections_of(config), config["seed"])
    section = config["stages"][stage]
    examples = {example["id"]: example for example in data[section["data"] or "data"].test}
    for row in read_journal(workdir / "evaluations" / f"{stage}.jsonl"):
        if row["sample"] == 0:
            yield row, examples[row["id"]]


def rollouts(workdir: pathlib.Path, stage: str) -> list[dict[str, Any]]:
    """The completions that a stage sampled."""
    return [row for row in read_journal(workdir / "rollouts.jsonl") if row["stage"] == stage]


def preferences(runs: Runs) -> str:
    """Margins, form and right answers before and after training on preferences."""

    def cells(policy: str, workdir: pathlib.Path, metrics: dict) -> list[str]:
        trained = policy != "sft"
        shown = ["preference/ahead", "preference/accuracy", "logprob/chosen"]
        return [
            *(arrow(ends(workdir, policy, name)) if trained else "" for name in shown),
            share(metrics["format/strict"]),
            share(metrics["sampled/format/strict"]),
            percent(metrics),
        ]

    header = ["seed", "policy", "ahead", "pairs right", "log π chosen", "in form, %",
              "sampled, %", "right, %"]  # fmt: skip
    return table(header, by_policy(runs["preferences"], cells))


def distillation(runs: Runs) -> str:
    """The divergence of teacher and student, and right answers of all."""

    def cells(policy: str, workdir: pathlib.Path, metrics: dict) -> list[str]:
        fell = arrow(ends(workdir, "distill", "divergence"), 3) if policy == "distill" else ""
        return [fell, percent(metrics)]

    return table(["seed", "policy", "divergence, nats", "right, %"],
                 by_policy(runs["distill_gemma3_1b"], cells))  # fmt: skip


def reward_models(runs: Runs) -> str:
    """Held-out pairs that reward models have right, and the policies that follow them."""
    lines, policies = [], ("sft", "grpo", "grpo_coins")
    for seed, workdir in runs["thought_teacher_gemma2_2b"].items():
        right = evaluation_of(workdir)
        for n, model in enumerate(("reward_model", "coins")):
            path = workdir / "rewards" / f"{model}.json"
            known = json.loads(path.read_text("utf-8"))
            lines.append([
                seed if n == 0 else "", model,
                *(percent(known, name) for name in ("accuracy", "accuracy/same length")),
                percent(known, "best of N"),
                percent(right["grpo" if n == 0 else "grpo_coins"]),
            ])  # fmt: skip
        lines.append(["", f"({policies[0]})", "", "", "", percent(right["sft"])])
    return table(["seed", "model", "pairs right, %", "of the same length", "best of 8 right",
                  "policy by it right"], lines)  # fmt: skip


def curriculum(runs: Runs) -> str:
    """Right answers by level, and the bucket that the curriculum came to."""
    lines = []
    for seed, workdir in runs["curriculum"].items():
        found: dict[str, dict[int, list[bool]]] = {}
        for row, example in greedy_rows(workdir):
            levels = found.setdefault(row["policy"], {})
            levels.setdefault(example["level"], []).append(row["right"]["strict"])
        reached = max(
            row["curriculum/level"]
            for row in read_journal(workdir / "metrics.jsonl")
            if "curriculum/level" in row
        )
        for n, (policy, levels) in enumerate(found.items()):
            bucket = f"{reached:.0f}" if policy == "promoted" else ""
            shares = [share(statistics.mean(levels[level])) for level in sorted(levels)]
            lines.append([seed if n == 0 else "", policy, *shares, bucket])
    return table(["seed", "policy", *(f"level {n}" for n in range(2, 6)), "bucket"], lines)


def right_and_wrong(
    workdir: pathlib.Path, stage: str, reward: str, within: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """A reward's values for the first right completions of a stage, and for wrong ones.

    Of those only that have `within` in them.
    """
    right, wrong = [], []
    for row in rollouts(workdir, stage):
        value = row["reward"][reward]
        if row["iteration"] < WINDOW and value is not None and within in row["completion"]:
            answer = strict(row["completion"])
            is_right = answer is not None and same_number(answer, row["gold"])
            (right if is_right else wrong).append(value)
    return np.array(right), np.array(wrong)


def reference_probability(runs: Runs) -> str:
    """How well the reward tells right answers, and what follows it."""
    lines = []
    for seed, workdir in runs["rlpr"].items():
        right, wrong = right_and_wrong(workdir, "rlpr", "reference_probability")
        evaluated = evaluation_of(workdir)
        lines.append([
            seed, f"{chance_of_order(right, wrong):.3f}",
            *(f"{statistics.mean(values):.2f}" for values in (right, wrong)),
            *(percent(evaluated[policy]) for policy in ("sft", "rlpr", "shuffled")),
        ])  # fmt: skip
    return table(["seed", "AUC", "reward where right", "where wrong", "before", "RLPR",
                  "shuffled"], lines)  # fmt: skip


def judges(runs: Runs) -> str:
    """How well a judge tells right answers, and what follows its verdicts and shuffled ones."""
    lines = []
    for name, start in (("rar_gemma2_2b", "sft"), ("pinocchio_gemma3_1b", "simpo")):
        for n, (seed, workdir) in enumerate(runs[name].items()):
            evaluated = evaluation_of(workdir)
            told = (right_and_wrong(workdir, "grpo", "judged", within) for within in ("", "="))
            lines.append([
                f"`{name}`" if n == 0 else "", seed,
                *(f"{chance_of_order(right, wrong):.2f}" for right, wrong in told),
                *(percent(evaluated[policy]) for policy in (start, "grpo", "shuffled")),
            ])  # fmt: skip
    return table(["rehearsal", "seed", "AUC", "of those with equations", "before", "judged",
                  "shuffled"], lines)  # fmt: skip


def own_solutions(runs: Runs) -> str:
    """What a policy makes of its own right solutions, and GRPO after these or the world's."""
    lines = []
    for seed, workdir in runs["star"].items():
        evaluated = evaluation_of(workdir)
        rows = read_journal(workdir / "metrics.jsonl")
        kept = [row["traces/kept"] for row in rows if row["stage"] == "own"][-1]
        policies = ("sft", "star", "grpo", "more_sft", "alone")
        lines.append([seed, share(kept), *(percent(evaluated[policy]) for policy in policies)])
    return table(["seed", "kept, %", "sft", "own", "own, GRPO", "world's", "world's, GRPO"],
                 lines)  # fmt: skip


def plans(runs: Runs) -> str:
    """Plans that can be carried out, and that reach their goal."""
    lines = []
    for seed, workdir in runs["robotics_gemma3_1b"].items():
        found: dict[str, list[tuple[float, float]]] = {}
        for row, example in greedy_rows(workdir):
            steps = steps_of(strict(row["completion"]) or "")
            is_done = bool(steps) and execute(example["strips"], steps)[0] == len(steps)
            reached = plan(example, row["completion"], prefix=0.0)
            found.setdefault(row["policy"], []).append((is_done, reached))
        for n, (policy, values) in enumerate(found.items()):
            shares = [share(statistics.mean(column)) for column in zip(*values, strict=True)]
            lines.append([seed if n == 0 else "", policy, *shares])
    return table(["seed", "policy", "executable, %", "reach the goal, %"], lines)


def checkpoints(runs: Runs) -> str:
    """What each checkpoint reward alone pays, as a share of what the worked solution earns."""
    lines = []
    for seed in range(SEEDS):
        paid = {}
        for variant in ("tiny", "better,tiny"):
            config = get_config(variant).to_dict()
            data = load_datasets(sections_of(config), seed)["data"]
            rewards = config["stages"]["grpo"]["rewards"]
            (name,) = (name for name in rewards if name.startswith("checkpoints"))
            entry = {**rewards[name], "weight": 1.0, "gate": None}
            table_of_one = reward_table([{"name": name, **entry}])
            report = scored(table_of_one, data.test[:EXAMPLES], seconds=5.0)
            paid[name] = {row.case: row.total / report.plain for row in report.rows}
        for n, case in enumerate(STUFFED):
            shares = [share(by_case[case]) for by_case in paid.values()]
            lines.append([str(seed) if n == 0 else "", case, *shares])
    return table(["seed", "completion", "by substring, %", "by equations, %"], lines)


class Mechanism(NamedTuple):
    """The configs that show a mechanism, and what makes tables of their runs."""

    runs: dict[str, str]
    tables: Callable[[Runs], str]


def alone(name: str) -> dict[str, str]:
    """An experiment of controls.py."""
    return {name: f"benchmarks/controls.py:{name}"}


def rehearsed(name: str) -> dict[str, str]:
    """The rehearsal of a system."""
    return {name: f"configs/{name}.py:tiny"}


MECHANISMS = {
    "preferences": Mechanism(alone("preferences"), preferences),
    "distillation": Mechanism(rehearsed("distill_gemma3_1b"), distillation),
    "reward models": Mechanism(rehearsed("thought_teacher_gemma2_2b"), reward_models),
    "curriculum": Mechanism(alone("curriculum"), curriculum),
    "reference probability": Mechanism(alone("rlpr"), reference_probability),
    "judges": Mechanism(rehearsed("rar_gemma2_2b") | rehearsed("pinocchio_gemma3_1b"), judges),
    "own solutions": Mechanism(
        {"star": "configs/thinking_in_tokens_gemma3_1b.py:star,tiny"}, own_solutions
    ),
    "plans": Mechanism(rehearsed("robotics_gemma3_1b"), plans),
    "checkpoints": Mechanism({}, checkpoints),  # no run: of completions that are made
}
