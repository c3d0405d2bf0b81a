"""The datasets of a run: what each section of the config names, in splits.

    train        what is learnt from
    validation   what is measured while a stage runs; a dataset may have none
    test         what is measured at the end; a further dataset may have none

    arithmetic, planning, stoichiometry, legal     made here (worlds.py)
    gsm8k, rows, traces, rubrics, choices          files (forms.py)
    preferences                                    files of pairs of completions
    mixture                                        several of these as one (mixing.py)

Validation examples stand in a file of their own, or are made here of problems of their own, or are
the last ones of the training file, which is then trained on without them. Of a dataset of one file
a hash of the question says what is for validation and test. No question that is held out is trained
on, in whichever dataset it stands; nor is a validation question in the test.

Shots are the first training examples with a worked solution, shown before every question of their
dataset and taken off what is trained on there: no prompt shows its own question, nor one held out.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from grpo.data import contamination, making
from grpo.data.examples import DataError, Example, question_key
from grpo.data.filters import keep_short, require_disjoint, require_kept
from grpo.data.forms import FILES
from grpo.data.making import VALIDATION_SHARE, at_once, make
from grpo.data.mixing import interleaved, mixed
from grpo.data.order import usual
from grpo.data.templates import TEMPLATES, Template
from grpo.data.worlds import WORLDS

SPLITS = ("train", "validation", "test")
HELD_OUT = 5  # of a training file at most one example in so many is for validation
MIXTURE = "mixture"
DEFAULT = "data"  # the dataset of stages that name none: its section of the config, and its name
Section = Mapping[str, Any]
Report = dict[str, Any]


class Dataset(NamedTuple):
    """The examples of each split, how they become prompts, and what was found on the way."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    template: Template
    report: Report
    mixing: float | None = None  # the temperature of a mixture

    def order(self, examples: Sequence[Example], seed: int) -> Callable[[int], int]:
        """The order of some of its examples: from an index to a place among them."""
        if self.mixing is None:
            return usual(seed, len(examples))
        return mixed([example["domain"] for example in examples], self.mixing, seed)


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
    return FILES[data["source"]].rows if data["source"] in FILES else "examples"


def required_splits(name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits that a dataset of this name must have, whatever reads it.

    Where nothing is trained no training file is needed.
    """
    kinds = {config["stages"].get(stage, {}).get("kind") for stage in config["pipeline"]}
    train = () if kinds == {"evaluate"} and config["model"]["path"] else ("train",)
    return (*train, "test") if name == DEFAULT else train


def has_split(data: Section, split: str) -> bool:
    """Whether a dataset has a split."""
    if data["source"] in WORLDS or (split == "validation" and data["validation_examples"]):
        return data[f"{split}_examples"] > 0
    return data[split] is not None or data.get(f"{split}_share", 0.0) > 0


def offers(name: str, split: str, sections: Mapping[str, Section]) -> bool:
    """Whether a dataset has a split: a mixture, if one of those has it that it is made of."""
    parts = sections[name]["of"] if sections[name]["source"] == MIXTURE else (name,)
    return any(has_split(sections[part], split) for part in parts if part in sections)


def load_datasets(
    sections: Mapping[str, Section], seed: int, check: Callable[[], None] = at_once
) -> dict[str, Dataset]:
    """The datasets of a config; what is held out is never trained on. `check` may end it."""
    own = {name: data for name, data in sections.items() if data["source"] != MIXTURE}
    loaded = {name: load_dataset(data, seed, check) for name, data in own.items()}
    loaded = {name: uncontaminated(dataset, own[name], loaded) for name, dataset in loaded.items()}
    for name, held in loaded.items():
        for split in ("validation", "test"):
            file = file_of(sections[name], split)
            for other, dataset in loaded.items():
                among = "the training ones" + (f" of {other}" if other != name else "")
                require_disjoint(dataset.train, getattr(held, split), file, split, among)
        file = file_of(sections[name], "test")
        require_disjoint(held.validation, held.test, file, "test", "the validation ones")
    loaded = {name: with_shots(dataset, sections[name]) for name, dataset in loaded.items()}
    return {name: loaded.get(name) or mixture(data, loaded) for name, data in sections.items()}


def mixture(data: Section, loaded: Mapping[str, Dataset]) -> Dataset:
    """Several datasets as one, each split of the same split of these."""
    parts = {name: loaded[name] for name in data["of"]}
    splits = {
        split: interleaved({name: getattr(part, split) for name, part in parts.items()})
        for split in SPLITS
    }
    sizes = {f"train/{name}": len(part.train) for name, part in parts.items()}
    return Dataset(
        **splits,
        template=parts[data["of"][0]].template,
        report={"source": MIXTURE, **sizes},
        mixing=data["mixing_temperature"],
    )


def uncontaminated(dataset: Dataset, data: Section, loaded: Mapping[str, Dataset]) -> Dataset:
    """The dataset without, or after a look at, training questions that say a held-out one."""
    train, found = contamination.checked(
        dataset.train,
        [e for other in loaded.values() for e in (*other.validation, *other.test)],
        then=data["contamination"], n=data["ngram"], min_kept=data["min_kept"],
        name=file_of(data, "train"),
    )  # fmt: skip
    return dataset._replace(train=train, report={**dataset.report, **found})


def load_dataset(data: Section, seed: int, check: Callable[[], None] = at_once) -> Dataset:
    """The dataset of a section."""
    report: Report = {"source": data["source"]}
    load = made if data["source"] in WORLDS else read
    splits, template = load(data, seed, report, check), TEMPLATES[data["template"]]
    return Dataset(**splits, template=template, report=report, mixing=None)


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


def made(
    data: Section, seed: int, report: Report, check: Callable[[], None]
) -> dict[str, list[Example]]:
    """The splits of a world that is made here."""
    share, source = VALIDATION_SHARE if data["validation_examples"] else 0.0, data["source"]
    of_all = {"worked": data["worked"], "validation_share": share, "check": check}
    return {
        part: make(
            source, WORLDS[source], seed, data[f"{part}_examples"], data["levels"], part, **of_all
        )
        for part in SPLITS
    }


def read(
    data: Section, seed: int, report: Report, check: Callable[[], None]
) -> dict[str, list[Example]]:
    """The splits that stand in files; what was found in these goes into the report."""
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        if data[split] is not None:
            check()
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
    return splits | hashed(splits["train"], data)


def hashed(train: Sequence[Example], data: Section) -> dict[str, list[Example]]:
    """The splits of the examples of one file, by a hash of the question; {} if it is all one."""
    shares = [part for part in ("validation", "test") if data[f"{part}_share"]]
    if not shares:
        return {}
    found: dict[str, list[Example]] = {part: [] for part in ("train", *shares)}
    for example in train:
        shares_of_both = data["test_share"], data["validation_share"]
        found[making.split(question_key(example), *shares_of_both)].append(example)
    for part, examples in found.items():
        if not examples:
            raise DataError(
                f"{data['train']}: a hash of the question puts none of {len(train)} examples into "
                f"{part}: change {'_share, '.join(shares)}_share"
            )
    return found


def file_of(data: Section, split: str) -> str:
    """Where a split comes from."""
    held_out_of = data["train"] if split == "validation" or data["test_share"] else None
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
