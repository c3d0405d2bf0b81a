"""Runs the variants of a stage's first updates, and says which equalities hold.

    exact       everything that two runs leave is the same, bit by bit
    rounding    at the first update, which begins in both from the same bits: the same tokens,
                |Δ| of log-probs and loss and the relative |Δ| of the gradient at most TOLERANCE

What comes after the first update is measured, and not promised: rounding moves parameters, and
these move tokens. On a mesh a token may part even in the first iteration, where two are as likely
but for rounding; such a line says so, and nothing else of it can be compared. Where the model has
not all of its numbers in float32, nothing but exact equalities is promised.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from grpo.certificates.cell import Cell
from grpo.certificates.compare import Found, compared, metrics_of
from grpo.certificates.variants import Variant
from grpo.pipeline import FINISHED, SAVED
from grpo.runs.borrow import borrow
from grpo.storage.journal import read_journal

TOLERANCE = 1e-5
HOLDS, BROKEN, OPEN = "holds", "DOES NOT HOLD", "not promised"
HOST_DEVICES = re.compile(r"--xla_force_host_platform_device_count=\d+")
Runner = Callable[[Cell, int, bool], int]  # a cell, devices, whether programs are kept
ROOT = pathlib.Path(__file__).parent.parent.parent


class CertificateError(RuntimeError):
    """A variant that did not run; one line."""


class Line(NamedTuple):
    """A variant beside another one."""

    name: str
    beside: str
    exact: bool
    found: Found
    verdict: str


def in_process_of_its_own(cell: Cell, devices: int, keeps_programs: bool) -> int:
    """Runs a cell in another Python, with so many virtual devices of the CPU."""
    file = pathlib.Path(cell.workdir).with_suffix(".json")
    file.write_text(json.dumps(cell._asdict()), "utf-8")
    flags = HOST_DEVICES.sub("", os.environ.get("XLA_FLAGS", ""))
    environment = {
        **os.environ, "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}".strip(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    if not keeps_programs:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    with open(file.with_suffix(".log"), "a", encoding="utf-8") as log:
        return subprocess.run(
            [sys.executable, "-m", "grpo.certificates.cell", str(file)],
            env=environment, stdout=log, stderr=log, check=False,
        ).returncode  # fmt: skip


def start_from(
    config: Mapping[str, Any], name: str, folder: pathlib.Path, run: Runner
) -> pathlib.Path | None:
    """A run of the stages before, which all variants begin from; None where there are none."""
    earlier = config["pipeline"][:-1]
    if not earlier:
        return None
    stages = {stage: config["stages"][stage] for stage in earlier}
    cell = Cell({**config, "pipeline": earlier, "stages": stages}, str(folder / "start"), name,
                None, None)  # fmt: skip
    expect(run(cell, 1, True), FINISHED, "the stages before", folder / "start")
    return folder / "start"


def expect(code: int, wanted: int, what: str, workdir: pathlib.Path) -> None:
    """Raises where a process ended otherwise."""
    if code != wanted:
        log = workdir.with_suffix(".log")
        said = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
        last = next((line for line in reversed(said) if line.strip()), "nothing was said")
        raise CertificateError(f"{what}: ended with {code}, expected {wanted}: {last}")


def carry_out(
    variant: Variant,
    number: int,
    name: str,
    folder: pathlib.Path,
    start: pathlib.Path | None,
    run: Runner,
) -> pathlib.Path:
    """Runs a variant to its end, with its interruptions; its directory."""
    workdir = folder / f"variant-{number}"
    workdir.mkdir()
    if start is not None:
        borrow(start, workdir, variant.config["pipeline"][:-1])
    mesh = variant.config["mesh"]

    def launched(stop_at: int | None, kill_at: int | None) -> int:
        cell = Cell(variant.config, str(workdir), name, stop_at, kill_at)
        return run(cell, mesh["fsdp"] * mesh["tp"], variant.keeps_programs)

    if variant.stop_at is not None:
        expect(launched(variant.stop_at, None), SAVED, f"{variant.name}, stopped", workdir)
    if variant.kill_at is not None:
        expect(launched(None, variant.kill_at), -9, f"{variant.name}, killed", workdir)
    expect(launched(None, None), FINISHED, variant.name, workdir)
    return workdir


def require_signal(workdir: pathlib.Path, name: str, stage: Mapping[str, Any]) -> None:
    """Raises where the first update learns nothing: its gradient would be made of rounding."""
    first = metrics_of(workdir, name)[0]
    if first.get("group/zero_variance") == 1 and not stage["teacher"]:
        raise CertificateError(
            f"stages.{name}: the rewards of each group of the first iteration are equal, so there "
            "is no gradient to compare: --before=N trains the stages before for longer, "
            "--start=RUN begins at those of a run"
        )


def verdict(found: Found, *, exact: bool, is_float32: bool, on_a_mesh: bool) -> str:
    """Whether what is promised holds."""
    if exact:
        return HOLDS if found.same else BROKEN
    if not is_float32:
        return OPEN
    if found.rows_same < found.rows:
        return f"{OPEN}: other tokens" if on_a_mesh else BROKEN
    worst = max(found.logprobs, found.loss_first, found.gradient)
    return HOLDS if worst <= TOLERANCE else BROKEN


def certify(
    every: Iterable[Variant],
    name: str,
    folder: pathlib.Path,
    start: pathlib.Path | None,
    *,
    run: Runner,
    say: Callable[[str], None],
) -> tuple[list[Line], dict[str, Any]]:
    """The lines, and what the base ran on."""
    there: dict[str, pathlib.Path] = {}
    lines: list[Line] = []
    for number, variant in enumerate(every):
        say(variant.name)
        there[variant.name] = workdir = carry_out(variant, number, name, folder, start, run)
        if variant.beside is None:
            require_signal(workdir, name, variant.config["stages"][name])
        else:
            found = compared(there[variant.beside], workdir, name)
            dtypes = {variant.config["model"][field] for field in ("dtype", "param_dtype")}
            said = verdict(
                found, exact=variant.exact, is_float32=dtypes == {"float32"},
                on_a_mesh=max(variant.config["mesh"].values()) > 1,
            )  # fmt: skip
            lines.append(Line(variant.name, variant.beside, variant.exact, found, said))
    launches = read_journal(there["base"] / "environment.jsonl")
    return lines, launches[-1] if launches else {}
