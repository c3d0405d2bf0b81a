"""What a run was begun with, by its content: inputs.json, looked at in every launch.

    data         of each dataset the examples of a split as they are used, in their order
    tokenizers   of the base and of each further model
    weights      of the same, each file that they are read from: config, tensors, or what a
                 checkpoint of another run and those beneath it list

A run that went on with others would be another run, and nothing would show it. A file of weights is
read again only where its size or its times are no longer as they were; random weights follow from
the seed.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpo.data.datasets import SPLITS, Dataset
from grpo.data.examples import Example
from grpo.runs.open_policy import is_checkpoint, run_of
from grpo.runs.policies import Policies
from grpo.runs.run import Run, RunError
from grpo.storage.manifest import NAME as MANIFEST
from grpo.storage.manifest import THREADS, write_json
from models.checkpoints import package
from models.checkpoints.hub import local_directory, local_file

FILE = "inputs.json"
CHUNK = 1000  # examples at a time
SHOWN = 5  # inputs that an error names
Inputs = dict[str, Any]


def pin_inputs(run: Run) -> None:
    """Writes down what the run is begun with, or makes sure that it is what it was."""
    file = run.workdir / FILE
    there = read_inputs(file) if file.exists() else {}
    here = inputs_of(run, there.get("weights", {}))
    if there and (changed := differences(there, here)):
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise RunError(
            f"--workdir={run.workdir} began with other inputs: {', '.join(changed[:SHOWN])}{more}: "
            f"bring them back, name another directory, or delete {file} to go on with these"
        )
    write_json(file, here)


def read_inputs(file: pathlib.Path) -> Inputs:
    """What inputs.json says."""
    try:
        found = json.loads(file.read_text("utf-8"))
        flat(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RunError(
            f"{file}: cannot be read; delete it to go on with the data, tokenizers and weights as "
            "they are now"
        ) from None
    return found


def inputs_of(run: Run, known: Mapping[str, Mapping]) -> Inputs:
    """The inputs of a run; `known` are its weights as they were found in an earlier launch."""
    config, check = run.config, run.stop.check
    models = {"base": config["model"], **config["models"]}
    return {
        "data": {name: hashes_of(data, check) for name, data in run.datasets.items()},
        "tokenizers": {
            name: hashlib.sha256(tokenizer.proto).hexdigest()
            for name, tokenizer in run.tokenizers.items()
        },
        "weights": {
            name: entries_of(dict(files_of(model)), known.get(name, {}))
            for name, model in models.items()
        },
    }


def differences(there: Inputs, here: Inputs) -> list[str]:
    """What is not the same in both, by name."""
    before, now = flat(there), flat(here)
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def flat(inputs: Inputs) -> dict[str, Any]:
    """The hash of every input by its name, which says what it is."""
    data = {
        f"the {split} examples of {name}": value
        for name, splits in inputs["data"].items()
        for split, value in splits.items()
    }
    tokenizers = {f"the tokenizer of {name}": x for name, x in inputs["tokenizers"].items()}
    weights = {
        f"{file} of {name}": (entry["size"], entry["sha256"])
        for name, files in inputs["weights"].items()
        for file, entry in files.items()
    }
    return {**data, **tokenizers, **weights}


def hashes_of(dataset: Dataset, check: Callable[[], None]) -> dict[str, str]:
    """A hash for each split that has examples, and of the shots; `check` may end it."""
    splits = {split: getattr(dataset, split) for split in SPLITS}
    splits["shown"] = dataset.template.get("shots", ())
    return {split: hash_of(rows, check) for split, rows in splits.items() if rows}


def hash_of(examples: Sequence[Example], check: Callable[[], None]) -> str:
    """A hash of examples in their order."""
    digest = hashlib.sha256()
    for first in range(0, len(examples), CHUNK):
        check()
        rows = examples[first : first + CHUNK]
        digest.update(json.dumps(rows, default=str).encode())
    return digest.hexdigest()


def files_of(model: Mapping[str, Any]) -> Iterator[tuple[str, pathlib.Path]]:
    """The files that a model's weights are read from, by names that hold no folder of a machine."""
    path, revision = model["path"], model.get("revision")
    if path is None:
        return
    if is_checkpoint(path):
        yield from files_below(pathlib.Path(path))
        return
    file = package.model_file(str(path)) if package.is_named(path) else local_file(path, revision)
    if file is not None:
        yield file.name, file
        return
    directory = local_directory(path, revision)
    tensors = sorted(directory.glob("*.safetensors"))
    described = [directory / "config.json", *tensors] if tensors else directory.rglob("*")
    for found in sorted(described):
        if found.is_file():
            yield found.relative_to(directory).as_posix(), found


def files_below(checkpoint: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """The lists of a checkpoint and of those that its stage stands on, down to a model's files."""
    config, workdir, stage = run_of(checkpoint)
    policies = Policies(config, workdir, nothing, {})
    while stage != "base":
        yield f"{stage}/{checkpoint.name}/{MANIFEST}", checkpoint / MANIFEST
        stage = policies.predecessor(stage)
        if stage != "base":
            checkpoint = policies.final(stage)
    yield from files_of(config["model"])


def nothing() -> Any:
    """Nobody asks for these weights."""
    raise AssertionError


def entries_of(files: Mapping[str, pathlib.Path], known: Mapping[str, Any]) -> Inputs:
    """Size, hash and times of files; those that are as they were known are not read."""
    with ThreadPoolExecutor(THREADS) as pool:
        entries = pool.map(lambda name: entry_of(files[name], known.get(name, {})), files)
        return dict(zip(files, entries, strict=True))


def entry_of(file: pathlib.Path, known: Mapping[str, Any]) -> Inputs:
    """The same of one file."""
    found = os.stat(file)
    # A copy may keep the first of the times, never the second.
    now = {"size": found.st_size, "times": [found.st_mtime_ns, found.st_ctime_ns]}
    if {name: known.get(name) for name in now} == now and "sha256" in known:
        return dict(known)
    with file.open("rb") as stream:
        return {**now, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
