"""A judge on devices of its own, beside one that takes turns with the policy.

    python benchmarks/split_mesh.py                two virtual devices, of one thread each: seconds
    python benchmarks/split_mesh.py --devices=8    four and four: who works when

GRPO by a judge alone, which is smaller than the policy and reads more: sampling and judging take
about as long. `in turn` has both on the first half of the devices; `apart` gives the judge the
other half; `one step off` samples the next batch meanwhile (staleness 1). The ways take turns, a
run of each; an iteration's seconds are the median of those of a run, the first two left out, which
compile. Virtual devices share two cores: with two of them each half has a core, with eight there is
little to win, and what is shown is that both are busy.
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import _rehearsal, base
from grpo.pipeline import run_config
from grpo.reporting.progress import table
from grpo.rollout.generate import Sampler
from grpo.runs.policy_judge import PolicyJudge
from grpo.storage.journal import read_journal

WAYS = {"in turn": (False, 0), "apart": (True, 0), "one step off": (True, 1)}
TOKENS, WIDTH = 96, 96  # of a completion; characters of a timeline
Span = tuple[float, float]


def config_of(devices: int, apart: bool, staleness: int, iterations: int):
    """The experiment."""
    config = base.base()
    _rehearsal.on_a_cpu(config, levels=(2,), worked=0.35, max_prompt=38, tokens=TOKENS)
    fsdp, half = max(1, devices // 4), devices // 2
    tp = half // fsdp
    config.mesh.update(fsdp=fsdp, tp=tp)
    config.model.whole = (*_rehearsal.TAGS, "yes", "no")
    config.models.judge = config.model.copy_and_resolve_references()
    config.model.update(size="gemma3_tiny", unroll=1)
    config.judges.grader = base.judge(
        model="judge", prompt="right", rubric="right", scale="yes_no", least_mass=0.0,
        max_prompt=288, batch=32,
    )  # fmt: skip
    if apart:
        config.meshes.judge = base.mesh(fsdp=fsdp, tp=tp, first=half)
    config.stages.grpo = grpo = base.grpo()
    _rehearsal.shorten(grpo, iterations=iterations, tokens=TOKENS)
    grpo.update(evaluate_every=0, staleness=staleness)
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    config.pipeline = ("grpo",)
    return config


@contextlib.contextmanager
def spans(owner: type, name: str, found: list[Span]) -> Iterator[None]:
    """Notes from when to when a method ran, what it has computed being there."""
    method = getattr(owner, name)

    def timed(self, *words, **named):
        began = time.perf_counter()
        result = jax.block_until_ready(method(self, *words, **named))
        found.append((began, time.perf_counter()))
        return result

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, method)


def timeline(of: dict[str, list[Span]], begin: float, end: float) -> list[str]:
    """A line for each of them: where it was at work."""
    lines = []
    for name, found in of.items():
        marks = [" "] * WIDTH
        for a, b in found:
            first, last = (int((t - begin) / (end - begin) * WIDTH) for t in (a, b))
            for place in range(max(first, 0), min(last + 1, WIDTH)):
                marks[place] = "#"
        lines.append(f"{name:>9} |{''.join(marks)}|")
    return lines


def overlap(one: list[Span], other: list[Span]) -> float:
    """The share of the time of `one` during which the other one works too."""
    both = sum(max(0.0, min(b, d) - max(a, c)) for a, b in one for c, d in other)
    return both / sum(b - a for a, b in one)


def measure(name: str, flags: argparse.Namespace) -> tuple[float, float, list[str]]:
    """A run: its median seconds, the share of sampling beside judging, a timeline of its end."""
    sampled: list[Span] = []
    judged: list[Span] = []
    with spans(Sampler, "sample", sampled), spans(PolicyJudge, "read", judged):
        config = config_of(flags.devices, *WAYS[name], iterations=flags.iterations)
        with tempfile.TemporaryDirectory() as folder:
            assert run_config(config.to_dict(), pathlib.Path(folder)) == 0
            rows = read_journal(pathlib.Path(folder) / "timing.jsonl")
    steps = [b - a for a, b in itertools.pairwise(row["seconds"] for row in rows)]
    begin, end = sampled[-4][0], max(sampled[-1][1], judged[-1][1])
    bars = timeline({"sampling": sampled, "judging": judged}, begin, end)
    return statistics.median(steps[2:]), overlap(sampled[2:], judged), bars


def main() -> None:
    """Prints the seconds of each way, and a timeline of its last iterations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=14)
    parser.add_argument("--turns", type=int, default=3)
    flags = parser.parse_args()
    os.environ["XLA_FLAGS"] = (  # which is read when the first device is asked for
        f"--xla_force_host_platform_device_count={flags.devices} "
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    found = {name: [] for name in WAYS}
    for _ in range(flags.turns):
        for name, runs in found.items():
            runs.append(measure(name, flags))
    medians = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    lines = [
        [name, f"{seconds:.2f}", f"{seconds / medians['in turn']:.2f}", f"{found[name][-1][1]:.0%}"]
        for name, seconds in medians.items()
    ]
    print(table(["way", "s per iteration", "beside in turn", "sampling while judging"], lines))
    for name, runs in found.items():
        print(f"\n{name}", *runs[-1][2], sep="\n")


if __name__ == "__main__":
    main()
