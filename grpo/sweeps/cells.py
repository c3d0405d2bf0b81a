"""From a sweep's file to its cells: base x ablations x seeds.

A sweep's file has a `get_config()` that returns configs/base.py's `sweep()`. A cell is the config
that `file` makes for "BASE/ABLATION", with the sweep's seed added to its own, so that equal seeds
share data, prompts and draws whatever the ablation. Its directory is named by a hash of the config
as config.json will show it, but for what is free to differ between two launches (grpo/pipeline.py).
"""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grpo.checks.arguments import place_in
from grpo.checks.devices import about_meshes
from grpo.checks.problems import fields, problems
from grpo.checks.rules import SEED, TEXT, several
from grpo.data.nearest import nearest
from grpo.pipeline import FREE, STAGES, with_presets

FIELDS = {
    "file": TEXT,
    "base": TEXT,
    "ablations": several(TEXT),
    "seeds": several(SEED),
    "baseline": TEXT,
}
BASE = "base"  # how the base itself is called
Config = Mapping[str, Any]


class SweepError(ValueError):
    """A sweep that cannot be; one line for each fault."""


class Cell(NamedTuple):
    """A config of a sweep."""

    cell: str  # ablation and seed
    ablation: str
    seed: int
    config: Config
    changed: Mapping[str, Any]  # leaf -> value of what differs from the base of the same seed

    @property
    def name(self) -> str:
        """That of its directory."""
        return f"{self.cell}-{hash_of(self.config)}"


def sweep_of(path: str) -> dict[str, Any]:
    """What a sweep's file asks for."""
    sweep = plain(made_by(path, ()), path)
    if wrong := list(fields(sweep, FIELDS, "")):
        raise SweepError("\n".join(f"{path}: {line}" for line in wrong))
    for field in ("ablations", "seeds"):
        if len(set(sweep[field])) < len(sweep[field]):
            raise SweepError(f"{path}: {field}={sweep[field]!r}: one is there twice")
    if sweep["baseline"] not in sweep["ablations"]:
        hint = nearest(sweep["baseline"], sweep["ablations"])
        raise SweepError(f"{path}: baseline={sweep['baseline']!r}: is none of ablations{hint}")
    return sweep


def cells_of(sweep: Config) -> list[Cell]:
    """The cells, seed by seed: those of one seed may begin with the same work."""
    of = {
        name: plain(made_by(sweep["file"], (f"{sweep['base']}/{name}",)), sweep["file"])
        for name in dict.fromkeys(("", *sweep["ablations"]))
    }
    found, faults = [], []
    for name in sweep["ablations"]:
        faults += [f"{name or BASE}: {line}" for line in faults_of(of[name])]
    if faults:
        raise SweepError("\n".join(faults))
    for seed in sweep["seeds"]:
        configs = {name: seeded(config, seed) for name, config in of.items()}
        for name in sweep["ablations"]:
            changed = changes(with_presets(configs[""]), with_presets(configs[name]))
            cell = f"{name or BASE}-seed{seed}"
            found.append(Cell(cell, name, seed, configs[name], changed))
    refuse_twins(found)
    return found


def refuse_twins(cells: list[Cell]) -> None:
    """Two cells of one config would count the same run twice."""
    seen: dict[str, str] = {}
    for cell in cells:
        key = hash_of(cell.config)
        if key in seen:
            raise SweepError(f"{seen[key]} and {cell.cell} are the same config: leave one out")
        seen[key] = cell.cell


def made_by(path: str, words: tuple[str, ...]) -> Any:
    """What the get_config of a file returns; whatever is wrong with the file in one line."""
    file = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location(f"sweep_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise SweepError(f"{path}: no such file, as configs/sweeps/presets.py is one")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(*words)
    except Exception as error:  # of a file that may do anything
        said = " ".join(str(error).split())
        where = place_in(error, file) or f"{type(error).__name__}: {said}"
        raise SweepError(f"{path}: {where}") from None


def plain(config: Any, path: str) -> dict[str, Any]:
    """A ConfigDict as dictionaries."""
    if not hasattr(config, "to_dict"):
        raise SweepError(f"{path}: get_config() returns {config!r:.40}, not a ConfigDict")
    return config.to_dict()


def seeded(config: Config, seed: int) -> dict[str, Any]:
    """The config with a seed added to its own."""
    return {**config, "seed": config["seed"] + seed}


def faults_of(config: Config) -> list[str]:
    """What is wrong with a config, but for devices that are not there, which its run looks for.

    A process that looked for them here would hold an accelerator's memory while the sweep goes.
    """
    on_one = {**config, "mesh": {"fsdp": 1, "tp": 1}, "meshes": {}}
    return problems(on_one, STAGES) or list(about_meshes(config))


def hash_of(config: Config) -> str:
    """Eight digits of what a run would compute."""
    computed = {key: x for key, x in with_presets(config).items() if key not in FREE}
    text = json.dumps(computed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def changes(before: Config, after: Config) -> dict[str, Any]:
    """Leaf -> value of what differs; None for one that is gone."""
    old, new, gone = dict(flat(before)), dict(flat(after)), object()
    paths = [path for path in {**old, **new} if old.get(path, gone) != new.get(path, gone)]
    return {path: new.get(path) for path in paths}


def flat(tree: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
