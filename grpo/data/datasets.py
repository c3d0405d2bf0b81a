"""The datasets of a run: what each section of the config names, in splits.

    train        what is learnt from
    validation   what is measured while a stage runs; a dataset may have none
    test         what is measured at the end; a further dataset may have none

    arithmetic    made here                      gsm8k   files in that dataset's form (gsm8k.py)
    rows          files with any columns (sources.py)
    preferences   the same, of pairs of completions (preferences.py)

Validation examples stand in a file of their own, or are made here of problems of their own, or are
the last ones of the training file, which is then trained on without them. No question that is held
out is trained on, in whichever dataset it stands; nor is a validation question in the test.

Shots are the first training examples with a worked solution, shown before every question of their
dataset and taken off what is trained on there: no prompt shows its own question, nor one held out.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from grpo.data import gsm8k, preferences, sources
from grpo.data.arithmetic import VALIDATION_SHARE, make_examples
from grpo.data.examples import REQUIRED, DataError, Example
from grpo.data.filters import keep_short, require_disjoint, require_kept
from grpo.data.templates import TEMPLATES, Template

SPLITS = ("train", "validation", "test")
HELD_OUT = 5  # of a training file at most one example in so many is for validation
DEFAULT = "data"  # the dataset of stages that name none: its section of the config, and its name
Section = Mapping[str, Any]
Report = dict[str, Any]
Found = tuple[list[Example], Report]


class Source(NamedTuple):
    """Files of a form: what their rows are, the columns these need and may have, the reader."""

    rows: str
    required: set[str]
    optional: set[str]
    load: Callable[[str, Section], Found]


FILES = {
    "gsm8k": Source(
        "examples",
        REQUIRED,
        gsm8k.OPTIONAL,
        lambda path, data: gsm8k.load_gsm8k(
            path, data["columns"], data["strip_commas"], data["max_bad"]
        ),
    ),
    "rows": Source(
        "examples",
        REQUIRED,
        sources.OPTIONAL,
        lambda path, data: sources.load_examples(path, data["columns"], data["max_bad"]),
    ),
    "preferences": Source(
        "preferences",
        preferences.REQUIRED,
        preferences.OPTIONAL,
        lambda path, data: preferences.load_preferences(path, data["columns"], data["max_bad"]),
    ),
}


class Dataset(NamedTuple):
    """The examples of each split, how they become prompts, and what was found on the way."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    template: Template
    report: Report


def sections_of(config: Mapping[str, Any]) -> dict[str, Section]:
    """The sections of a config that are datasets, by name."""
    return {DEFAULT: config[DEFAULT], **config["datasets"]}


def section_of(config: Mapping[str, Any], name: str | None) -> Section:
    """The section of a dataset; None: the default one."""
    return sections_of(config)[name or DEFAULT]


def reads_of(stage: Section, config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a stage reads: the section that says so, "" or "evaluation.", a dataset, a split."""
    evaluation, own = config["evaluation"], stage.get("data") or DEFAULT
    reads = [("", own, stage.get("split", "train"))]
    if own in sections_of(config) and stage.get("evaluate_every"):
        reads.append(("evaluation.", evaluation["data"] or own, evaluation["split"]))
    return reads


def buckets_for(config: Mapping[str, Any], name: str | None) -> tuple[int, ...]:
    """The buckets that prompts of a dataset may need: none beyond the first that holds them all."""
    buckets, longest = config[DEFAULT]["buckets"], section_of(config, name)["max_prompt"]
    smaller = sorted(bucket for bucket in buckets if bucket < longest)
    return (*smaller, min(bucket for bucket in buckets if bucket >= longest))


def rows_of(data: Section) -> str:
    """What the rows of a dataset are: examples or preferences."""
    return "examples" if data["source"] == "arithmetic" else FILES[data["source"]].rows


def required_splits(name: str) -> tuple[str, ...]:
    """The splits that a dataset of this name must have, whatever reads it."""
    return ("train", "test") if name == DEFAULT else ("train",)


def has_split(data: Section, split: str) -> bool:
    """Whether a dataset has a split."""
    if data["source"] == "arithmetic" or (split == "validation" and data["validation"] is None):
        return data[f"{split}_examples"] > 0
    return data[split] is not None


def load_datasets(sections: Mapping[str, Section], seed: int) -> dict[str, Dataset]:
    """The datasets of a config; what is held out is never trained on."""
    loaded = {name: load_dataset(data, seed) for name, data in sections.items()}
    for name, held in loaded.items():
        for split in ("validation", "test"):
            file = file_of(sections[name], split)
            for other, dataset in loaded.items():
                among = "the training ones" + (f" of {other}" if other != name else "")
                require_disjoint(dataset.train, getattr(held, split), file, split, among)
        file = file_of(sections[name], "test")
        require_disjoint(held.validation, held.test, file, "test", "the validation ones")
    return {name: with_shots(dataset, sections[name]) for name, dataset in loaded.items()}


def load_dataset(data: Section, seed: int) -> Dataset:
    """The dataset of a section."""
    report: Report = {"source": data["source"]}
    load = made if data["source"] == "arithmetic" else read
    return Dataset(**load(data, seed, report), template=TEMPLATES[data["template"]], report=report)


def with_shots(dataset: Dataset, data: Section) -> Dataset:
    """The dataset with its shots in the template, and not among the training examples."""
    if not data["shots"]:
        return dataset
    worked = [example for example in dataset.train if example["reasoning"]]
    shots = worked[: data["shots"]]
    if len(shots) < data["shots"]:
        raise DataError(
            f"{file_of(data, 'train')}: {len(worked)} of {len(dataset.train)} training examples "
            f"have a worked solution, shots={data['shots']} are to be shown"
        )
    ids = [example["id"] for example in shots]
    return dataset._replace(
        train=[example for example in dataset.train if example["id"] not in ids],
        template={**dataset.template, "shots": shots},
        report={**dataset.report, "shots": ids},
    )


def made(data: Section, seed: int, report: Report) -> dict[str, list[Example]]:
    """The splits of the arithmetic world."""
    share = VALIDATION_SHARE if data["validation_examples"] else 0.0
    return {
        split: make_examples(
            seed, data[f"{split}_examples"], data["levels"], split, data["worked"], share
        )
        for split in SPLITS
    }


def read(data: Section, seed: int, report: Report) -> dict[str, list[Example]]:
    """The splits that stand in files; what was found in these goes into the report."""
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        if data[split] is not None:
            splits[split], found = FILES[data["source"]].load(data[split], data)
            report |= {f"{split}/{key}": value for key, value in found.items()}
    if data["validation_examples"]:
        train = splits["train"]
        first = len(train) - min(data["validation_examples"], len(train) // HELD_OUT)
        if first == len(train):
            raise DataError(
                f"{data['train']}: of {len(train)} examples none is for validation, which is "
                "a fifth at most: set validation_examples to 0, or name a file"
            )
        splits |= {"train": train[:first], "validation": train[first:]}
    return splits


def file_of(data: Section, split: str) -> str:
    """Where a split comes from."""
    held_out_of = data["train"] if split == "validation" else None
    return str(data[split] or held_out_of or data["source"])


def drop_long(dataset: Dataset, length_of: Callable[[Example], int], data: Section) -> Dataset:
    """The examples whose prompts fit, and their share; too small a share is an error."""
    kept, report = {}, dict(dataset.report)
    limit = f"{data['max_prompt']}" + (f" with {data['shots']} shots" if data["shots"] else "")
    for split in SPLITS:
        kept[split] = examples = getattr(dataset, split)
        if not examples:
            continue
        kept[split], ratio = keep_short(examples, length_of, data["max_prompt"])
        name = pathlib.Path(file_of(data, split)).name
        require_kept(ratio, data["min_kept"], f"{name} ({split}, prompts of {limit})")
        report |= {f"{split}/kept": ratio, f"{split}/examples": len(kept[split])}
    return dataset._replace(**kept, report=report)
