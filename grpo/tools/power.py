"""What a GRPO stage has to learn from, before it is trained: python -m grpo.tools.power --help

    python -m grpo.tools.power --config=configs/tiny.py --workdir=runs/tiny

--config=FILE[:VARIANT]     the experiment, as for launch.py
--stage=NAME                a GRPO stage of its pipeline; without it the first one
--workdir=DIRECTORY         a run that has what the stage starts from; nothing is written there
--policy=PATH               or another policy: a checkpoint, a directory, a .gguf file
--examples=200 --samples=16 of the training split, and how often each is asked, in whole groups
--order=uniform             or stage: the examples in the stage's own order, a curriculum's first
--temperatures=0.7,1,1.3    samples at these too
--wanted=0.02               the difference in accuracy to reckon problems and seeds for
--seed_sd=0.02              standard deviation of accuracy over seeds of training, if it is known
--write=FILE.json           all numbers

The policy that the stage starts from is sampled with the stage's own programs and scored by its
rewards. Said are pass rates by difficulty, the share of groups to expect that teach nothing, for
each group size, with what speaks for one of them (grpo/evaluation/power.py); the smallest
difference that the config's evaluation can show (grpo/algorithms/differences.py); and in which
order the rewards put right, wrong and gaming completions (grpo/tools/hack.py).
"""

import contextlib
import logging
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from grpo.algorithms.differences import difference
from grpo.checks.arguments import end, parse
from grpo.checks.problems import problems
from grpo.data.curriculum import START, curriculum_of, promoted_at
from grpo.data.examples import DataError, Example
from grpo.evaluation.power import GROUPS, by_difficulty, histogram, signal
from grpo.pipeline import STAGES, print_errors, with_presets
from grpo.reporting.progress import Progress
from grpo.runs.borrow import borrow
from grpo.runs.compile_cache import keep_programs
from grpo.runs.curricula import fixed_order
from grpo.runs.meshes import own_mesh
from grpo.runs.open_policy import open_policy
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop
from grpo.runs.setup import set_up
from grpo.runs.start_samples import Samples, start_samples
from grpo.storage.manifest import write_json
from grpo.storage.snapshot import SnapshotError
from grpo.tools.power_report import report
from models.checkpoints.files import CheckpointError
from models.policy import Policy

Config = Mapping[str, Any]
ALPHA, POWER = 0.05, 0.8


def define() -> None:
    """The flags."""
    config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
    flags.DEFINE_string("stage", None, "A GRPO stage of its pipeline; without it the first one.")
    flags.DEFINE_string("workdir", None, "A run that has what the stage starts from.")
    flags.DEFINE_string("policy", None, "Another policy to sample.")
    flags.DEFINE_integer("examples", 200, "Of the training split.", 2)
    flags.DEFINE_integer("samples", 16, "Of each example, in whole groups.", 2)
    flags.DEFINE_enum("order", "uniform", ["uniform", "stage"], "In which examples are taken.")
    flags.DEFINE_list("temperatures", [], "Samples at these too.")
    flags.DEFINE_float("wanted", 0.02, "The difference in accuracy to reckon for.", 1e-4, 1.0)
    flags.DEFINE_float("seed_sd", 0.02, "Deviation of accuracy over seeds.", 0.0, 1.0)
    flags.DEFINE_string("write", None, "A JSON file for all numbers.")


def stage_of(config: Config, named: str | None) -> str:
    """The stage that is asked about."""
    known = [n for n in config["pipeline"] if config["stages"][n]["kind"] == "grpo"]
    if not known:
        end("the pipeline has no stage of kind 'grpo'")
    if named is not None and named not in known:
        end(f"--stage={named}: is no GRPO stage of the pipeline; expected {', '.join(known)}")
    return named or known[0]


def temperatures_of(texts: list[str]) -> list[float]:
    """What a list of numbers above 0 says."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        found = [0.0]
    if not all(0 < temperature < 100 for temperature in found):
        end(f"--temperatures={','.join(texts)}: expected numbers above 0")
    return found


@contextlib.contextmanager
def opened(config: Config, workdir: pathlib.Path | None) -> Iterator[tuple[Run, Policies]]:
    """The run of a config in a directory that goes afterwards, with what another run has left."""
    progress = Progress(sys.stderr, every_s=config["log"]["every_s"])
    with tempfile.TemporaryDirectory() as folder:
        if workdir is not None:
            borrow(workdir, pathlib.Path(folder), config["stages"])
        yield set_up(config, pathlib.Path(folder), progress, Stop())


def policy_of(config: Config, policies: Policies, name: str, path: str | None) -> Policy:
    """The policy to be sampled."""
    if path is not None:
        return open_policy(path, mesh=own_mesh(config))
    try:
        return policies.start(name)
    except SnapshotError:
        before = policies.predecessor(name)
        raise SnapshotError(
            f"stages.{name} starts from the end of {before}: --workdir=DIRECTORY names a run that "
            "has it, --policy=PATH another policy"
        ) from None


def first_examples(run: Run, name: str, order: str, count: int) -> list[Example]:
    """Training examples, each once: in the usual order, or in the stage's own at its beginning."""
    data = run.data_of(name)
    place_of = data.order(data.train, run.seed)
    if order == "stage":
        place_of = fixed_order(run, name)
        curriculum = curriculum_of(run.config["stages"][name]["curriculum"], data.train)
        if curriculum is not None:
            places = [promoted_at(curriculum, START, run.seed, i) for i in range(count)]
            return [data.train[place] for place in dict.fromkeys(places)]
    places = dict.fromkeys(place_of(i) for i in range(min(count, len(data.train))))
    return [data.train[place] for place in places]


def evaluations_of(run: Run, stage: str) -> list[tuple[str, int, int]]:
    """How many problems and completions of each measure a stage, by what the evaluations are."""
    config, found = run.config, []
    for name in config["pipeline"]:
        one = config["stages"][name]
        if one["kind"] == "evaluate":
            size = len(getattr(run.data_of(name), one["split"])[: one["examples"]])
            found += [(f"{name}, greedy", size, 1)] if one["greedy"] else []
            found += [(f"{name}, samples", size, m)] if (m := one["samples"]) else []
    if not found:
        section = config["evaluation"]
        data = run.datasets[section["data"]] if section["data"] else run.data_of(stage)
        size = len(getattr(data, section["split"])[: section["examples"]])
        found.append(("running evaluation", size, 1))
    return found


def numbers(
    examples: Sequence[Example], found: Samples, stage: Config, groups: Sequence[int]
) -> dict[str, Any]:
    """All that samples say at one temperature."""
    sizes, rows = sorted({*groups, stage["group"]}), stage["prompts"] * stage["group"]
    valid = found.total_En[np.isfinite(found.total_En)]
    return {
        "by difficulty": by_difficulty(examples, found.right_En),
        "histogram": histogram(found.right_En),
        "signal": [signal(found.total_En, size, rows) for size in sizes],
        "reward": float(valid.mean()) if valid.size else None,
        "without reward": 1 - valid.size / found.total_En.size,
        "tokens": float(found.length_En.mean()),
        "truncated": float(found.truncated_En.mean()),
    }


def measured(
    config: Config,
    name: str,
    *,
    workdir: pathlib.Path | None,
    path: str | None,
    examples: int,
    samples: int,
    order: str,
    temperatures: Sequence[float],
    wanted: float,
    seed_sd: float,
) -> dict[str, Any]:
    """Samples the policy; all numbers, as JSON holds them."""
    stage = config["stages"][name]
    own = stage["sampling"]["temperature"]
    with opened(config, workdir) as (run, policies):
        policy = policy_of(config, policies, name, path)
        chosen = first_examples(run, name, order, examples)
        by_temperature, at_own = {}, None
        for step, temperature in enumerate([own, *(t for t in temperatures if t != own)]):
            drawn = start_samples(
                run, policies, name, policy, chosen, samples=samples, step=step,
                sampling={**stage["sampling"], "temperature": temperature},
            )  # fmt: skip
            at_own = at_own or drawn
            by_temperature[str(temperature)] = numbers(chosen, drawn, stage, GROUPS)
        assert at_own is not None
        can_show = {
            what: {"problems here": size, "completions": m} | difference(
                at_own.right_En, problems=size, completions=m, seed_sd=seed_sd, wanted=wanted,
                alpha=ALPHA, power=POWER,
            )._asdict()
            for what, size, m in evaluations_of(run, name)
        }  # fmt: skip
    return {
        "stage": name, "examples": len(chosen), "samples": at_own.right_En.shape[1],
        "temperature": own, "group": stage["group"], "prompts": stage["prompts"],
        "wanted": wanted, "seed_sd": seed_sd,
        "by temperature": by_temperature, "differences": can_show,
    }  # fmt: skip


def main() -> int:
    """From the command line."""
    given: Any = flags.FLAGS.flag_values_dict()
    config = given["config"].to_dict()
    if wrong := problems(config, STAGES):
        return print_errors(wrong)
    config, name = with_presets(config), stage_of(config, given["stage"])
    workdir = given["workdir"]
    temperatures = temperatures_of(given["temperatures"])
    try:
        found = measured(
            config, name, workdir=pathlib.Path(workdir) if workdir else None,
            path=given["policy"], temperatures=temperatures,
            **{f: given[f] for f in ("examples", "samples", "order", "wanted", "seed_sd")},
        )  # fmt: skip
        print("\n".join(report(config, found)))
    except (CheckpointError, DataError, SnapshotError, OSError, ValueError) as error:
        return print_errors([" ".join(str(error).split())])
    if given["write"]:
        write_json(pathlib.Path(given["write"]), found)
    return 0


if __name__ == "__main__":
    define()
    for logger in ("jax", "httpx2"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    keep_programs()
    app.run(lambda _: sys.exit(main()), flags_parser=parse)
