"""Sampling while a judge reads beside sampling after it: accuracy, and seconds of an iteration.

    python benchmarks/asynchrony.py [--seeds=0,1,2,3,4] [--runs=runs/asynchrony] [--latency=1.0]

accuracy   for every seed one run of configs/tiny.py in which GRPO goes on twice from the same end
           of supervised training, with `staleness` 0 and 1; the rewards are those of the tiny job
time       one run with a judge behind a URL of this machine, which says after `latency` seconds
           whether a completion is right: it has the golds. Stages with `staleness` 0 and 1 take
           turns; a stage with the same reward and no judge is beside them

Runs that are there are not made again. Prints two tables; `--only` makes one of them.
"""

import argparse
import contextlib
import http.server
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import base, tiny
from grpo.data.datasets import load_datasets, sections_of
from grpo.reporting.progress import table
from grpo.rewards.correct import CORRECT
from grpo.storage.journal import read_journal

ROOT = pathlib.Path(__file__).parent.parent
TURNS, ITERATIONS, WARM_UP = 2, 20, 3  # the first iterations of a stage compile
RIGHT = "accuracy/strict"
ASKED = "\nRight?"  # the end of a prompt "right"


def get_config(variant: str = ""):
    """The experiment; `variant` is accuracy or time."""
    if variant not in ("accuracy", "time"):
        raise ValueError(f"variant {variant!r} of benchmarks/asynchrony.py: accuracy or time")
    config = tiny.get_config()
    fresh = config.stages.grpo
    del config.stages["grpo"]
    if variant == "accuracy":
        for staleness in (0, 1):
            stage = config.stages[f"stale_{staleness}"] = fresh.copy_and_resolve_references()
            stage.update(start="sft", staleness=staleness)
        config.stages.evaluate.policies = ("sft", "stale_0", "stale_1")
        config.pipeline = ("sft", "stale_0", "stale_1", "evaluate")
        return config
    del config.stages["evaluate"]
    config.stages.sft.steps = 60
    config.pipeline = ("sft",)
    fresh.update(start="sft", iterations=ITERATIONS, evaluate_every=0, checkpoint_every=1000)
    for turn in range(TURNS):
        for name, staleness in {"alone": 0, "stale_0": 0, "stale_1": 1}.items():
            stage = config.stages[f"{name}_{turn}"] = fresh.copy_and_resolve_references()
            stage.staleness = staleness
            if name != "alone":
                del stage.rewards["correct_answer"]
                # Each has a judge of its own: a recording of another one's would answer at once.
                stage.rewards.judged = base.reward(1.0, 0.0, 1.0, judge=f"{name}_{turn}")
                config.judges[f"{name}_{turn}"] = base.judge(
                    url="http://127.0.0.1:1/v1", name="truth", prompt="right", scale="yes_no",
                    concurrency=fresh.prompts * fresh.group, seconds=60.0,
                )  # fmt: skip
            config.pipeline += (f"{name}_{turn}",)
    return config


@contextlib.contextmanager
def judge(golds: Mapping[str, str], latency: float) -> Iterator[str]:
    """A judge that has the golds, and takes its time; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            """Whether the completion in the prompt is right."""
            due = time.monotonic() + latency
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][0]["content"].removesuffix(ASKED)
            question, _, completion = prompt.partition("\n")
            is_right = CORRECT["strict"]({"answer": golds[question]}, completion)
            message = {"role": "assistant", "content": "yes" if is_right else "no"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = json.dumps({"choices": [choice]}).encode()
            time.sleep(max(due - time.monotonic(), 0.0))
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 256

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def run(variant: str, workdir: pathlib.Path, *overrides: str) -> None:
    """One run to its end."""
    if (workdir / "DONE").exists():
        return
    command = [sys.executable, "launch.py", f"--config=benchmarks/asynchrony.py:{variant}"]
    subprocess.run(
        [*command, *overrides, f"--workdir={workdir}"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip


def accuracies(runs: Mapping[int, pathlib.Path]) -> str:
    """A line for each seed, with intervals of 95 % over problems (Wilson), and the mean."""
    lines, columns = [], []
    for seed, workdir in runs.items():
        found = json.loads((workdir / "evaluations" / "evaluate.json").read_text("utf-8"))
        shares, cells = [], []
        for policy in ("sft", "stale_0", "stale_1"):
            share, low, high = (100 * found[policy][RIGHT + end] for end in ("", "/low", "/high"))
            shares.append(share)
            cells.append(f"{share:.1f} ({low:.0f} to {high:.0f})")
        columns.append([*shares, shares[2] - shares[1]])
        lines.append([str(seed), *cells, f"{columns[-1][3]:+.1f}"])
    means = [statistics.mean(column) for column in zip(*columns, strict=True)]
    gaps = [column[3] for column in columns]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
    lines.append(
        ["mean", *(f"{x:.1f}" for x in means[:3]), f"{means[3]:+.1f}, standard error {error:.1f}"]
    )
    return table(["seed", "after SFT", "staleness 0", "staleness 1", "1 - 0"], lines)


def seconds(workdir: pathlib.Path) -> str:
    """The seconds of an iteration, by what it waits for; the turns of a stage together."""
    lines = []
    for name, label in {
        "alone": "no judge, staleness 0",
        "stale_0": "judge, staleness 0",
        "stale_1": "judge, staleness 1",
    }.items():
        took = []
        for turn in range(TURNS):
            stage = f"{name}_{turn}"
            at = [r["seconds"] for r in read_journal(workdir / "timing.jsonl")
                  if r["stage"] == stage]  # fmt: skip
            # A row is written with the next one, but for the last: at the end of the stage.
            took += [b - a for a, b in itertools.pairwise(at[:-1])][WARM_UP:]
        cells = (statistics.median(took), min(took), max(took))
        lines.append([label, *(f"{x:.2f}" for x in cells), str(len(took))])
    return table(["iterations", "median s", "least", "most", "measured"], lines)


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs" / "asynchrony")
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--only", choices=("accuracy", "time"))
    arguments = parser.parse_args()
    folder = arguments.runs.absolute()
    if arguments.only != "accuracy":
        config = get_config("time").to_dict()
        train = load_datasets(sections_of(config), config["seed"])["data"].train
        golds = {example["question"]: example["answer"] for example in train}
        with judge(golds, arguments.latency) as url:
            urls = [f"--config.judges.{name}.url={url}" for name in config["judges"]]
            run("time", folder / "time", *urls)
        print(seconds(folder / "time"))
    if arguments.only != "time":
        runs = {int(seed): folder / seed for seed in arguments.seeds.split(",")}
        for seed, workdir in runs.items():
            run("accuracy", workdir, f"--config.seed={seed}")
        print(accuracies(runs))


if __name__ == "__main__":
    main()
