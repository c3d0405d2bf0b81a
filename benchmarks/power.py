"""Dead groups as grpo.tools.power predicts them, beside those of the first ten iterations.

    python benchmarks/power.py RUN[:STAGE] [RUN[:STAGE] ...] [--iterations=10] [--write]

RUN is the directory of a finished run, which is only read: its config says the stage, its
checkpoints have the policy that the stage started from, and the rows of metrics.jsonl have
`group/zero_variance` of each iteration (docs/metrics.md). The policy is sampled anew, by keys that
training does not draw with, on the first examples in the stage's own order; predicted is the share
of dead groups of the stage's size, with its interval over prompts, observed the mean over the
iterations with Wilson's of all their groups. The first iterations train already: where accuracy
moves fast, the observed share moves away from the start's, so the first iteration stands beside.
Stages with shuffled rewards are refused: their groups are not those of the rewards. Configs of
older versions get the defaults of what they lack. --write puts the table into docs/power.md.
"""

import argparse
import json
import pathlib
from typing import Any

from page import DOCS, put

from configs import base
from grpo.algorithms.accuracy_estimates import wilson
from grpo.evaluation.power import Z
from grpo.reporting.progress import table
from grpo.storage.journal import read_journal
from grpo.tools.power import measured, stage_of

KINDS = {"sft": base.sft, "pairs": base.pairs, "preference": base.preference, "grpo": base.grpo}
OPEN = ("rewards", "options", "stages", "datasets", "models", "judges", "meshes", "columns")


def filled(there: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """A config of an older version, with the defaults of what it does not have."""
    found = {**default, **there}
    for key, value in default.items():
        if isinstance(value, dict) and isinstance(there.get(key), dict) and key not in OPEN:
            found[key] = filled(there[key], value)
    return found


def config_of(run: pathlib.Path) -> dict[str, Any]:
    """The config of a run, as this version has it."""
    config = filled(json.loads((run / "config.json").read_text("utf-8")), base.base().to_dict())
    for name, stage in config["stages"].items():
        if stage["kind"] in KINDS:
            config["stages"][name] = filled(stage, KINDS[stage["kind"]]().to_dict())
    return config


def observed(run: pathlib.Path, name: str, iterations: int) -> list[float]:
    """group/zero_variance of the first iterations."""
    rows = read_journal(run / "metrics.jsonl")
    found = [row for row in rows if row["stage"] == name and "group/zero_variance" in row]
    return [row["group/zero_variance"] for row in found[:iterations]]


def line(place: str, iterations: int) -> list[str]:
    """A row of the table."""
    path, _, named = place.partition(":")
    run = pathlib.Path(path)
    config = config_of(run)
    name = stage_of(config, named or None)
    stage = config["stages"][name]
    if stage["shuffle_rewards"]:
        raise SystemExit(f"{place}: its rewards are shuffled")
    prompts = stage["prompts"] * iterations
    found = measured(
        config, name, workdir=run, path=None, examples=max(128, min(prompts, 320)),
        samples=2 * stage["group"], order="stage", temperatures=(), wanted=0.02, seed_sd=0.0,
    )  # fmt: skip
    own = found["by temperature"][str(found["temperature"])]
    said = next(one for one in own["signal"] if one["group"] == stage["group"])
    seen = observed(run, name, iterations)
    share, groups = sum(seen) / len(seen), len(seen) * stage["prompts"]
    low, high = wilson(share * groups, groups, z=Z)
    right = own["by difficulty"]["all"]["share"]
    return [
        f"{run.parent.name}/{run.name} {name}", str(stage["group"]), f"{right:.0%}",
        interval(said["dead"], said["low"], said["high"]), interval(share, low, high),
        f"{100 * seen[0]:.0f}",
        "yes" if said["low"] <= high and low <= said["high"] else "no",
    ]  # fmt: skip


def interval(share: float, low: float, high: float) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * share:.1f} ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    header = ["run and stage", "G", "right", "predicted, %", "observed, %", "first", "overlap"]
    rows = [line(place, arguments.iterations) for place in arguments.runs]
    text = table(header, rows)
    print(text)
    if arguments.write:
        put(DOCS / "power.md", "predicted", text)


if __name__ == "__main__":
    main()
