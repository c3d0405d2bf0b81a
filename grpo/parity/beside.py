"""Runs a reference in a process of its own, perhaps in another environment.

Nothing of Tunix, flax.nnx, torch or transformers is imported by this project: the scripts that do
are in tests/references, beside the tests that use them, and leave arrays in a folder.
"""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grpo.parity.ours import Arrays

ROOT = pathlib.Path(__file__).resolve().parents[2]
ABOUT = "import importlib.metadata as m; print(m.version({!r}))"
SECONDS = 3600  # of a reference: a large model takes its time


class Reference(NamedTuple):
    """Another implementation."""

    package: str  # as it is installed
    script: str  # in tests/references
    install: str


REFERENCES = {
    "tunix": Reference("google-tunix", "parity_tunix", "pip install -e '.[parity]'"),
    "transformers": Reference(
        "transformers", "parity_transformers", "pip install torch transformers"
    ),
}


class BesideError(ValueError):
    """A reference that did not finish; one line."""


def installed(name: str, python: str) -> bool:
    """Whether an interpreter has a reference, and torch beside transformers."""
    packages = [REFERENCES[name].package, *(["torch"] if name == "transformers" else [])]
    try:
        return all(
            subprocess.run([python, "-c", ABOUT.format(package)], capture_output=True).returncode
            == 0
            for package in packages
        )
    except OSError:
        return False


def beside(
    name: str, python: str, folder: pathlib.Path, task: Arrays, walk: Arrays
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """What a reference makes of FOLDER/model and the task, and the versions it is of."""
    np.savez(folder / "task.npz", **task)
    np.savez(folder / "walk.npz", **walk)
    script = REFERENCES[name].script
    words = [python, "-m", f"tests.references.{script}", str(folder)]
    if name == "transformers":  # whose environment need not have this project's packages
        words = [python, str(ROOT / "tests" / "references" / f"{script}.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise BesideError(f"{name}: did not finish in {SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no word"]
        raise BesideError(f"{name}: {said[-1]}")
    with np.load(folder / "theirs.npz") as file:
        theirs = {key: file[key] for key in file.files}
    return theirs, json.loads((folder / "about.json").read_text("utf-8"))
