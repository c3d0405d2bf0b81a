"""This project beside Tunix and TRL on the work of work.py, in one run on one machine.

    python benchmarks/side_by_side.py [--tunix=path/to/python] [--trl=path/to/python]
                                      [--cases=rollout,train] [--rounds=3]

`--tunix` is the interpreter of an environment with the extra `parity`, `--trl` of one with TRL,
peft and a PyTorch for CPUs; a side without an interpreter is left out, and so is Tunix from `step`.
Neither peer is asked for `train4`: one number of theirs, of `train`, stands beside both of ours.

Each measurement is a process of its own on one core, so that its peak memory is its own, and the
sides take turns, so that a drifting machine slows all. Prints a JSON line per measurement, then
a table: medians over the rounds, of CPU-seconds with the least and the most of all runs. Compare
these: wall times suffer from whoever shares the machine. The limit is what the work's matrix
products need on a core with AMX that nobody shares; `products` what they need at the rate that one
large product reaches here and now.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator

import work
from absl import app, flags

PEERS = {
    "tunix": flags.DEFINE_string("tunix", None, "the Python of an environment with Tunix"),
    "trl": flags.DEFINE_string("trl", None, "the Python of an environment with TRL"),
}
ROUNDS = flags.DEFINE_integer("rounds", 1, "how often everything is measured")
REPEATS = flags.DEFINE_integer("repeats", 5, "runs of a measurement, after its first")
CASES = flags.DEFINE_list("cases", list(work.CASES), "which cases")
DTYPES = flags.DEFINE_list("dtypes", list(work.DTYPES), "which compute dtypes")
MODES = flags.DEFINE_list("modes", list(work.MODES), "what is trained")

HERE = pathlib.Path(__file__).parent
SCRIPTS = {"ours": "our_side.py", "tunix": "tunix_side.py", "trl": "trl_side.py"}
NAMES = {"ours": "ours", "tunix": "Tunix", "trl": "TRL"}
CASES_OF = {
    "ours": work.CASES,
    "tunix": ("rollout", "logprobs", "train"),
    "trl": ("rollout", "logprobs", "train", "step"),
}
Row = dict


def measured(python: str, side: str, case: str, dtype: str, mode: str) -> Row | None:
    """One measurement in a process of its own."""
    command = [python, str(HERE / SCRIPTS[side]), case, dtype, mode, str(REPEATS.value)]
    places = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"side"')]
    if done.returncode or not lines:
        print(f"{side} {case} {dtype} {mode} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    print(lines[-1], flush=True)
    return json.loads(lines[-1])


def text(value: float | None, digits: int) -> str:
    """A number in a cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b."""
    return a / b if a is not None and b is not None else None


class Found:
    """The rows of one work; a peer's update stands beside both of ours."""

    def __init__(self, rows: list[Row], case: str, dtype: str, mode: str):
        self._rows = rows
        self._case, self._dtype, self._mode = case, dtype, mode

    def of(self, side: str) -> list[Row]:
        """The rows of a side."""
        case = self._case if side == "ours" else self._case.removesuffix("4")
        key = side, case, self._dtype, self._mode
        names = "side", "case", "dtype", "mode"
        return [row for row in self._rows if tuple(row[name] for name in names) == key]

    def median(self, side: str, field: str) -> float | None:
        """Over the rounds."""
        found = self.of(side)
        return statistics.median(row[field] for row in found) if found else None

    def spread(self, side: str) -> str:
        """CPU-seconds, with the least and the most of all runs."""
        if not (found := self.of(side)):
            return "-"
        least, most = (
            pick(row[f"cpu_{name}_s"] for row in found)
            for name, pick in (("min", min), ("max", max))
        )
        return f"{text(self.median(side, 'cpu_s'), 2)} ({least:.2f} to {most:.2f})"


def cells(rows: list[Row], sides: list[str], case: str, dtype: str, mode: str) -> Iterator:
    """Heads and cells of one line; `a / b` in a cell is of the sides in their order."""
    found = Found(rows, case, dtype, mode)
    ours = found.median("ours", "cpu_s")
    flops = work.matmul_flops(case, mode)
    limit = flops / work.FLOPS[dtype]
    square = Found(rows, "products", dtype, MODES.value[0]).median("ours", "cpu_s")
    here = flops / work.matmul_flops("products", mode) * square if square else None
    yield from {"case": case, "dtype": dtype, "mode": mode}.items()
    yield "ours CPU s", found.spread("ours")
    for side in sides[1:]:
        yield f"{NAMES[side]} CPU s", found.spread(side)
        yield f"{NAMES[side]} / ours", text(ratio(found.median(side, "cpu_s"), ours), 2)
    yield "limit CPU s", text(limit, 2)
    yield "ours / limit", text(ratio(ours, limit), 1)
    yield "products CPU s", text(here, 2)
    yield "ours tok / CPU s", text(found.median("ours", "tokens_per_cpu_s"), 0)
    shared = ("wall s", "wall_s", 2), ("first CPU s", "first_cpu_s", 1), ("peak MiB", "peak_mib", 0)
    for head, field, digits in (*shared, ("load", "load", 1)):
        yield head, " / ".join(text(found.median(side, field), digits) for side in sides)


def table(rows: list[Row], sides: list[str]) -> list[str]:
    """A line for each work, side beside side."""
    works = dict.fromkeys((row["case"], row["dtype"], row["mode"]) for row in rows)
    lines = [dict(cells(rows, sides, *one)) for one in works if one[0] != "products"]
    heads = [list(lines[0]), ["---"] * len(lines[0])] if lines else []
    return ["| " + " | ".join(line) + " |" for line in [*heads, *(one.values() for one in lines)]]


def main(_) -> None:
    """Every work, all sides in turns."""
    pythons = {"ours": sys.executable}
    for side, python in PEERS.items():
        if python.value is None:
            print(f"{NAMES[side]} is left out: --{side} names no interpreter that has it")
        else:
            pythons[side] = python.value
    rows = []
    for turn in range(ROUNDS.value):
        for dtype in DTYPES.value:
            for mode in MODES.value:
                for case in CASES.value:
                    if case == "products" and mode != MODES.value[0]:
                        continue
                    sides = [side for side in pythons if case in CASES_OF[side]]
                    # Whoever goes first meets the machine as the last one left it: take turns.
                    for side in sides[:: -1 if turn % 2 else 1]:
                        rows.append(measured(pythons[side], side, case, dtype, mode))
    print("\n".join(table([row for row in rows if row], list(pythons))))


if __name__ == "__main__":
    app.run(main)
