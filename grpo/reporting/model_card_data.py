"""The data section of a model card: datasets and models that had a say, and their licences.

A licence that is not known is said to be missing, never guessed.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo.data.worlds import WORLDS
from grpo.reporting.progress import table
from grpo.reporting.text import printable

Config = Mapping[str, Any]
UNKNOWN = "**not known here: say it before you publish**"
LICENCES = {"gsm8k": "GSM8K (github.com/openai/grade-school-math), MIT"}


def data(config: Config | None, chain: Sequence[str]) -> str:
    """The datasets that the stages read, and what is known of their licences."""
    if config is None:
        return "Not here: see where the weights are from."
    lines = []
    for name, section in sections_read(config, chain):
        files, licence = ", ".join(files_of(section)), licence_of(section["source"])
        lines.append([f"`{name}`", section["source"], files, licence])
    others = sorted({
        f"- {kind} `{name}`: {printable(shown_path(model))}"
        for kind, name, model in helpers(config, chain)
    })  # fmt: skip
    parts = [table(["dataset", "source", "files", "licence"], lines)]
    if others:
        parts.append("Models that had a say, whose terms hold as well:\n\n" + "\n".join(others))
    return "\n\n".join(parts)


def sections_read(config: Config, chain: Sequence[str]) -> list[tuple[str, Config]]:
    """Name and section of each dataset of these stages; of a mixture its parts."""
    names: list[str] = []
    for stage in (config["stages"][name] for name in chain):
        names.append(stage.get("data") or "data")
        if (pairs := stage.get("preferences")) in config["datasets"]:
            names.append(pairs)
    found = {}
    while names:
        name = names.pop(0)
        section = config["data"] if name == "data" else config["datasets"][name]
        if name not in found:
            found[name] = section
            names += section.get("of", ()) if section["source"] == "mixture" else ()
    return list(found.items())


def files_of(section: Config) -> Iterator[str]:
    """The files of a dataset, without the folders of this machine."""
    for split in ("train", "validation", "test"):
        if section.get(split):
            yield f"{split}: {printable(shown_path(section[split]))}"


def licence_of(source: str) -> str:
    """What is known of the licence of a source."""
    if source in WORLDS:
        return "made by this code (Apache 2.0)"
    return "see its parts" if source == "mixture" else LICENCES.get(source, UNKNOWN)


def helpers(config: Config, chain: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Teachers and judges of the stages: what they are, their names, their models."""
    models = {name: model["path"] for name, model in config.get("models", {}).items()}
    for stage in (config["stages"][name] for name in chain):
        if (teacher := stage.get("teacher")) in models:
            yield "teacher", str(teacher), models[teacher] or "random weights"
        for entry in stage.get("rewards", {}).values():
            judge = config.get("judges", {}).get(entry.get("options", {}).get("judge"))
            if judge:
                by = judge["name"] or models.get(judge["model"]) or judge["model"] or "a recording"
                yield "judge", entry["options"]["judge"], by


def shown_path(path: str) -> str:
    """A path without the folders that are this machine's own."""
    return path if not path.startswith(("/", "~", ".")) else pathlib.PurePath(path).name
