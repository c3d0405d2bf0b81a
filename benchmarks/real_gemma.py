"""A published Gemma learns on two cores: the results in docs/real_weights.md.

    python benchmarks/real_gemma.py [--seeds=0,1] [--runs=runs/gemma3_270m] [--gsm8k=RUN]

Each seed is one run of configs/gemma3_270m.py:controls: supervised training, GRPO, their evaluation
(up to here this is configs/gemma3_270m.py itself), from the same end of supervised training more of
it for about as long as GRPO took, and the model before any training, asked with and without worked
examples. --gsm8k is a run of configs/gemma3_270m.py:gsm8k. A run that was stopped goes on, and one
that is done is not made again.
"""

import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from absl import app, flags
from main_job import over_stages, percent, stage_seconds
from page import DOCS, put

from grpo.reporting.curve import curve_svg
from grpo.reporting.progress import table
from grpo.storage.journal import read_journal

ROOT = pathlib.Path(__file__).parent.parent
SEEDS = flags.DEFINE_list("seeds", ["0", "1"], "one run each")
RUNS = flags.DEFINE_string("runs", str(ROOT / "runs" / "gemma3_270m"), "where the runs are")
GSM8K = flags.DEFINE_string("gsm8k", None, "a run of the variant :gsm8k")
SHOWN = 10
POLICIES = {  # in the table -> file and policy
    "before training, zero-shot": ("zero_shot", "base"),
    "before training, 4 examples": ("few_shot", "base"),
    "after SFT": ("evaluate", "sft"),
    "GRPO": ("evaluate", "grpo"),
    "more SFT instead": ("controls", "more_sft"),
}
STAGES = {"grpo": "GRPO", "more_sft": "more SFT"}
REWARDS = ("demo_exact_format", "demo_approximate_format", "demo_answer", "demo_numbers")


def found(workdir: pathlib.Path, stage: str) -> dict[str, Any]:
    """What a stage of evaluation measured, by policy."""
    return json.loads((workdir / "evaluations" / f"{stage}.json").read_text("utf-8"))


def results(runs: dict[str, pathlib.Path]) -> str:
    """Right answers of every policy and seed, and how they look."""
    lines = []
    for label, (stage, policy) in POLICIES.items():
        metrics = [found(workdir, stage)[policy] for workdir in runs.values()]
        shares = [f"{100 * statistics.mean(m[name] for m in metrics):.1f}"
                  for name in ("accuracy/lenient", "format/strict")]  # fmt: skip
        tokens = statistics.mean(m["length/mean"] for m in metrics)
        lines.append([label, *map(percent, metrics), *shares, f"{tokens:.1f}"])
    header = ["", *(f"seed {seed}" for seed in runs), "in any form", "in form", "tokens"]
    return table(header, lines)


def seconds(runs: dict[str, pathlib.Path]) -> str:
    """Wall time of every stage that trains, compiling and its evaluations included."""
    spans = [stage_seconds(workdir) for workdir in runs.values()]
    lines = [
        [f"seed {seed}", *(f"{span[stage] / 60:.0f}" for stage in ("sft", *STAGES))]
        for seed, span in zip(runs, spans, strict=True)
    ]
    return table(["minutes", "SFT", *STAGES.values()], lines)


def picture(runs: dict[str, pathlib.Path]) -> str:
    """Accuracy on validation problems: every seed, and the mean."""
    return curve_svg(
        over_stages(list(runs.values()), STAGES),
        title="Gemma 3 270M: right answers to 100 validation problems",
        x_label="% of the stage, from the end of supervised training on",
        y_label=f"greedy, strict form; {len(runs)} seeds and their mean",
        percent=True,
    )


def completions(workdir: pathlib.Path, before: str, after: str) -> str:
    """The first test problems with what two policies write, not chosen."""
    rows = read_journal(workdir / "evaluations" / "evaluate.jsonl")
    by_policy = {p: [r for r in rows if r["policy"] == p][:SHOWN] for p in (before, after)}
    lines = []
    for first, second in zip(by_policy[before], by_policy[after], strict=True):
        lines.append(f"{first['question']} ({first['gold']})")
        for name, row in (("before", first), ("after", second)):
            mark = "right" if row["right"]["strict"] else "wrong"
            text = " ".join(row["completion"].split()).replace("```", "'''")
            lines.append(f"    {name + ':':8}{text}  [{mark}]")
    return "\n".join(["```", *lines, "```"])


def on_gsm8k(workdir: pathlib.Path) -> str:
    """Form and right answers of the policies, and what the rewards of training did."""
    header = ["", "right, strict", "right, as the demo counts", "in the demo's form", "tokens"]
    lines = []
    for policy, metrics in found(workdir, "evaluate").items():
        cells = [percent(metrics), percent(metrics, "accuracy/demo")]
        cells += [f"{100 * metrics['format/demo']:.1f}", f"{metrics['length/mean']:.0f}"]
        lines.append([policy, *cells])
    rows = read_journal(workdir / "metrics.jsonl")
    rows = [row for row in rows if row["stage"] == "grpo" and "reward/mean" in row]
    fifth = max(1, len(rows) // 5)
    names = ["reward/mean", *(f"reward/{name}/mean" for name in REWARDS), "length/mean"]
    parts = {f"iterations 1 to {fifth}": rows[:fifth], f"the last {fifth}": rows[-fifth:]}
    means = [
        [label, *(f"{statistics.mean(row[name] for row in part):.2f}" for name in names)]
        for label, part in parts.items()
    ]
    head = ["in training", "reward", *REWARDS, "tokens"]
    return f"{table(header, lines)}\n\n{table(head, means)}"


def main(_) -> None:
    """Runs what is missing, then writes the page."""
    runs = {seed: pathlib.Path(RUNS.value) / f"seed{seed}" for seed in SEEDS.value}
    page = DOCS / "real_weights.md"
    for seed, workdir in runs.items():
        if not (workdir / "DONE").exists():
            command = [sys.executable, "launch.py", "--config=configs/gemma3_270m.py:controls"]
            command += [f"--config.seed={seed}", f"--workdir={workdir.absolute()}"]
            subprocess.run(command, cwd=ROOT, check=True)
    (DOCS / "real_weights.svg").write_text(picture(runs), "utf-8")
    text = f"{results(runs)}\n\n{seconds(runs)}"
    put(page, "results", text)
    put(page, "completions", completions(next(iter(runs.values())), "sft", "grpo"))
    print(text)
    if GSM8K.value:
        text = on_gsm8k(pathlib.Path(GSM8K.value))
        put(page, "gsm8k", text)
        print(text)


if __name__ == "__main__":
    app.run(main)
