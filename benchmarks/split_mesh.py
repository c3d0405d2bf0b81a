"""A judge on devices of its own, beside one that takes turns with the policy: seconds, and who works when.

    python benchmarks/split_mesh.py                two virtual devices, of one thread each: seconds
    python benchmarks/split_mesh.py --devices=8    four and four: who works when

A policy and a judge of the same size, GRPO by the judge alone. `in turn` has both on the same
devices; `apart` gives the judge the other half; `one step off` samples the next batch meanwhile
(staleness 1). The ways take turns, a run of each; an iteration's seconds are the median of those of
a run, the first two left out, which compile. Virtual devices share two cores: with two of them each
half has a core, with eight there is nothing to win, and what is shown is that both are busy.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WAYS = {"in turn": (False, 0), "apart": (True, 0), "one step off": (True, 1)}
WIDTH = 96  # characters of a timeline
Span = tuple[float, float]


def config_of(devices: int, *, apart: bool, staleness: int, iterations: int):
    """The experiment."""
    from configs import _rehearsal, base

    config = base.base()
    _rehearsal.on_a_cpu(config, levels=(2,), worked=0.35, max_prompt=38, tokens=32)
    fsdp, half = max(1, devices // 4), devices // 2
    tp = half // fsdp
    config.mesh.update(fsdp=fsdp, tp=tp)
    config.model.whole = (*_rehearsal.TAGS, "yes", "no")
    config.models.judge = config.model.copy_and_resolve_references()
    config.judges.grader = base.judge(
        model="judge", prompt="overall", rubric="generic", scale="yes_no", least_mass=0.0,
        max_prompt=512, batch=32,
    )  # fmt: skip
    if apart:
        config.meshes.judge = base.mesh(fsdp=fsdp, tp=tp, first=half)
    config.stages.grpo = grpo = base.grpo()
    _rehearsal.shorten(grpo, iterations=iterations, tokens=32)
    grpo.update(evaluate_every=0, staleness=staleness)
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    config.pipeline = ("grpo",)
    return config


def spans(owner: type, name: str, found: list[Span]) -> None:
    """Has a method note from when to when it ran, what it has computed being there."""
    import jax

    method = getattr(owner, name)

    def timed(self, *words, **named):
        began = time.perf_counter()
        result = jax.block_until_ready(method(self, *words, **named))
        found.append((began, time.perf_counter()))
        return result

    setattr(owner, name, timed)


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


def main() -> None:
    """Prints the seconds of each way, and a timeline of some iterations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=14)
    parser.add_argument("--turns", type=int, default=3)
    flags = parser.parse_args()
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={flags.devices} "
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    from grpo.pipeline import run_config
    from grpo.reporting.progress import table
    from grpo.rollout.generate import Sampler
    from grpo.runs.policy_judge import PolicyJudge
    from grpo.storage.journal import read_journal

    sampled: list[Span] = []
    judged: list[Span] = []
    spans(Sampler, "sample", sampled)
    spans(PolicyJudge, "read", judged)
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    shares: dict[str, float] = {}
    shown: dict[str, list[str]] = {}
    for _ in range(flags.turns):
        for name, (apart, staleness) in WAYS.items():
            sampled.clear(), judged.clear()
            config = config_of(
                flags.devices, apart=apart, staleness=staleness, iterations=flags.iterations
            )
            with tempfile.TemporaryDirectory() as workdir:
                assert run_config(config.to_dict(), pathlib.Path(workdir)) == 0
                rows = read_journal(pathlib.Path(workdir) / "timing.jsonl")
            seconds = [row["seconds"] for row in rows]
            steps = [b - a for a, b in zip(seconds[1:], seconds[2:], strict=False)]
            took[name].append(statistics.median(steps[1:]))
            warm = [span for span in judged if span[0] > sampled[2][1]]
            shares[name] = overlap(warm, sampled)
            begin = sampled[-5][0]
            end = max(sampled[-2][1], judged[-1][0])
            shown[name] = timeline({"sampling": sampled, "judging": judged}, begin, end)
    base = statistics.median(took["in turn"])
    lines = [
        [name, f"{statistics.median(x):.2f}", f"{statistics.median(x) / base:.2f}",
         f"{shares[name]:.0%}"]
        for name, x in took.items()
    ]  # fmt: skip
    print(table(["way", "s per iteration", "beside in turn", "judging while sampling"], lines))
    for name, bars in shown.items():
        print(f"\n{name}\n" + "\n".join(bars))


if __name__ == "__main__":
    main()
