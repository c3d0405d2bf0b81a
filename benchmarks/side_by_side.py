"""This project beside Tunix on the work of work.py, in one run on one machine.

    python benchmarks/side_by_side.py --tunix=path/to/python [--cases=rollout,train] [--rounds=3]

`--tunix` is the interpreter of an environment with the extra `parity`; without it only our side
runs. Each measurement is a process of its own, so that its peak memory is its own, and the two
sides take turns, so that a drifting machine slows both. Prints a JSON line per measurement, then
a table of medians over the rounds. Compare CPU-seconds: wall times suffer from whoever shares the
machine. The limit is what the work's matrix products need on cores with AMX that nobody shares;
`products` what they need at the rate that one large product reaches here and now.
"""

import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys

import work
from absl import app, flags

TUNIX = flags.DEFINE_string("tunix", None, "the Python of an environment with Tunix")
ROUNDS = flags.DEFINE_integer("rounds", 1, "how often everything is measured")
REPEATS = flags.DEFINE_integer("repeats", 5, "runs of a measurement, after its first")
CASES = flags.DEFINE_list("cases", list(work.CASES), "which cases")
DTYPES = flags.DEFINE_list("dtypes", list(work.DTYPES), "which compute dtypes")
MODES = flags.DEFINE_list("modes", list(work.MODES), "what is trained")

HERE = pathlib.Path(__file__).parent
SCRIPTS = {"ours": "our_side.py", "tunix": "tunix_side.py"}
COLUMNS = (
    "case", "dtype", "mode", "ours CPU s", "Tunix CPU s", "ours / Tunix", "limit CPU s",
    "ours / limit", "products CPU s", "ours tok / CPU s", "wall s", "first CPU s", "peak MiB",
    "load",
)  # fmt: skip


def measured(python: str, side: str, case: str, dtype: str, mode: str) -> dict | None:
    """One measurement in a process of its own."""
    command = [python, str(HERE / SCRIPTS[side]), case, dtype, mode, str(REPEATS.value)]
    places = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{side} {case} {dtype} {mode} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    print(lines[-1], flush=True)
    return json.loads(lines[-1])


def table(rows: list[dict]) -> list[str]:
    """The medians over rounds, side beside side; `a / b` in a cell is ours / Tunix's."""
    by_work = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        by_work[row["case"], row["dtype"], row["mode"]][row["side"]].append(row)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for (case, dtype, mode), sides in list(by_work.items()):
        if case == "products":
            continue

        def median(side: str, field: str, sides=sides) -> float | None:
            return statistics.median(row[field] for row in sides[side]) if sides[side] else None

        def pair(field: str, digits: int, median=median) -> str:
            values = [median(side, field) for side in ("ours", "tunix")]
            return " / ".join("-" if v is None else f"{v:.{digits}f}" for v in values)

        def cell(value: float | None, digits: int) -> str:
            return "-" if value is None else f"{value:.{digits}f}"

        ours = median("ours", "cpu_s")
        # Tunix's step knows no microbatches: its one step stands beside both of ours.
        whole = by_work[case.rstrip("4"), dtype, mode]["tunix"]
        theirs = statistics.median(row["cpu_s"] for row in whole) if whole else None
        flops = work.matmul_flops(case, mode)
        limit = flops / work.FLOPS[dtype]
        square = [
            row["cpu_s"] for row in rows if (row["case"], row["dtype"]) == ("products", dtype)
        ]
        here = statistics.median(square) / work.matmul_flops("products", mode) if square else None
        cells = (
            case,
            dtype,
            mode,
            cell(ours, 2),
            cell(theirs, 2),
            cell(ours / theirs if ours and theirs else None, 2),
            cell(limit, 2),
            cell(ours / limit if ours else None, 1),
            cell(flops * here if here else None, 2),
            cell(median("ours", "tokens_per_cpu_s"), 0),
            pair("wall_s", 2),
            pair("first_cpu_s", 1),
            pair("peak_mib", 0),
            pair("load", 1),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(_) -> None:
    """Every work, our side and Tunix's in turns."""
    if TUNIX.value is None:
        print("Tunix is left out: --tunix names no interpreter that has it", flush=True)
    rows = []
    for turn in range(ROUNDS.value):
        for dtype in DTYPES.value:
            for mode in MODES.value:
                for case in CASES.value:
                    sides = [(sys.executable, "ours", case, dtype, mode)]
                    if case == "products" and mode != MODES.value[0]:
                        continue
                    if TUNIX.value and case not in ("train4", "products"):
                        sides.append((TUNIX.value, "tunix", case, dtype, mode))
                    # Whoever goes first meets the machine as the last one left it: take turns.
                    for side in sides[:: -1 if turn % 2 else 1]:
                        rows.append(measured(*side))
    print("\n".join(table([row for row in rows if row])))


if __name__ == "__main__":
    app.run(main)
