"""What is wrong with a config: everything at once, before anything is loaded or compiled.

`problems(config)` is a list of lines, each beginning with the dotted path of a field: of the single
fields by the table in rules.py, where a field without a rule is unknown and a rule without its
field says what is missing; and, of a section whose single fields are fine, what they say together.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from grpo.checks.devices import about_devices, about_meshes
from grpo.checks.rules import (
    COMMON,
    DATASET,
    JUDGE,
    MESH,
    MODEL,
    REWARD,
    TEXT,
    Rule,
    one_of,
    rule_of,
)
from grpo.checks.sections import about_judge, about_reading
from grpo.data.datasets import (
    DEFAULT,
    MIXTURE,
    SPLITS,
    has_split,
    offers,
    required_splits,
    rows_of,
    sections_of,
)
from grpo.data.examples import DataError, check_columns
from grpo.data.forms import FILES
from grpo.data.nearest import nearest
from grpo.data.sources import READERS
from grpo.data.worlds import WORLDS
from grpo.rewards.batch import options_of
from grpo.rewards.table import REWARDS, about_options

Lines = Iterator[str]


class Stage(Protocol):
    """What the checks ask of the module of a stage."""

    FIELDS: Mapping[str, Rule]  # what each of its fields may be

    def check(self, stage: Mapping, config: Mapping) -> Lines:
        """What is wrong with fields that are fine one by one, each line from the field on."""
        ...


# Whose fields have names of the experiment's own, or of its reward functions.
OPEN = (
    "data.columns", "columns", "datasets", "models", "meshes", "judges", "stages", "rewards",
    "options", "heads",
)  # fmt: skip
STAGE_NAME = re.compile(r"\w[\w-]*")  # it is that of a directory too


def leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field; the open ones are taken as wholes."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in OPEN:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def fields(tree: Any, rules: Mapping[str, Rule], prefix: str) -> Lines:
    """What is wrong with single fields: unknown, missing, or of a value they may not have."""
    given = dict(leaves(tree)) if isinstance(tree, Mapping) else {}
    for path, value in given.items():
        if path not in rules:
            yield f"{prefix}{path}: unknown field{nearest(path, rules)}"
        elif wrong := rules[path](value):
            yield f"{prefix}{path}={value!r}: {wrong}"
    for path in rules:
        if path not in given:
            yield f"{prefix}{path}: is missing; configs/base.py has its default"


def problems(config: Mapping, stages: Mapping[str, Stage]) -> list[str]:
    """Everything that is wrong, a line each; what depends on a wrong field is not looked at.

    `stages` are those that there are, by kind.
    """
    found = list(fields(config, COMMON, ""))
    for name, data in named(config, "datasets"):
        found.extend(dataset_fields(name, data))
    for name, model in named(config, "models"):
        found.extend(model_fields(name, model, config))
    for name, mesh in named(config, "meshes"):
        found.extend(fields(mesh, MESH, f"meshes.{name}."))
    for name, judge in named(config, "judges"):
        found.extend(judge_fields(name, judge))
    wrong = {
        name: list(stage_fields(name, stage, stages)) for name, stage in named(config, "stages")
    }
    if not found:
        for name, data in sections_of(config).items():
            path = name if name == DEFAULT else f"datasets.{name}"
            required = required_splits(name, config)
            lines = [*about_data(data, required), *about_mixture(name, config)]
            found.extend(f"{path}.{line}" for line in lines)
        for name in config["judges"]:
            found.extend(f"judges.{name}.{line}" for line in about_judge(name, config))
        found.extend([*about_buckets(config), *about_devices(config)])
        for name in (name for name in wrong if not wrong[name]):
            stage = config["stages"][name]
            check = stages[stage["kind"]].check
            # What a stage reads is there before the rest of it is looked at.
            lines = list(about_reading(stage, config)) or list(check(stage, config))
            found.extend(f"stages.{name}.{line}" for line in lines)
        if not any(wrong.values()):
            found.extend([*about_pipeline(config), *about_meshes(config)])
    return [*found, *itertools.chain(*wrong.values())]


def named(tree: Mapping, field: str) -> list[tuple[str, Any]]:
    """What stands in an open field, by name."""
    value = tree.get(field)
    return list(value.items()) if isinstance(value, Mapping) else []


def stage_fields(name: str, stage: Any, stages: Mapping[str, Stage]) -> Lines:
    """What is wrong with single fields of a stage."""
    prefix, kind = f"stages.{name}.", stage.get("kind") if isinstance(stage, Mapping) else None
    if not STAGE_NAME.fullmatch(name) or name == "base":
        yield f"stages.{name}: expected another name, of letters, digits, _ and -"
    if not isinstance(kind, str) or kind not in stages:
        yield f"{prefix}kind={kind!r}: {one_of(*stages)(kind)}"
        return
    yield from fields(stage, {"kind": TEXT, **stages[kind].FIELDS}, prefix)
    for reward, entry in named(stage, "rewards"):
        yield from (f"{prefix}rewards.{reward}{line}" for line in reward_fields(reward, entry))


def reward_fields(name: str, entry: Any) -> Lines:
    """What is wrong with single fields of a reward, and with its options, by the signature."""
    yield from fields(entry, REWARD, ".")
    if name not in REWARDS:
        yield f": unknown reward{nearest(name, REWARDS)}"
        return
    options = entry.get("options") if isinstance(entry, Mapping) else None
    if not isinstance(options, Mapping):
        return
    yield from (f".options.{line}" for line in about_options(name, options))
    for option, parameter in options_of(REWARDS[name]).items():
        rule = rule_of(parameter.annotation)
        if option in options and rule and (wrong := rule(options[option])):
            yield f".options.{option}={options[option]!r}: {wrong}"


def model_fields(name: str, model: Any, config: Mapping) -> Lines:
    """What is wrong with single fields of a further model."""
    if not STAGE_NAME.fullmatch(name) or name == "base" or name in config.get("stages", {}):
        yield f"models.{name}: expected another name, none of a stage, of letters, digits, _ and -"
    yield from fields(model, MODEL, f"models.{name}.")


def judge_fields(name: str, judge: Any) -> Lines:
    """What is wrong with single fields of a judge."""
    if not STAGE_NAME.fullmatch(name):
        yield f"judges.{name}: expected another name, of letters, digits, _ and -"
    yield from fields(judge, JUDGE, f"judges.{name}.")


def dataset_fields(name: str, data: Any) -> Lines:
    """What is wrong with single fields of a further dataset."""
    if not STAGE_NAME.fullmatch(name) or name == DEFAULT:
        yield f"datasets.{name}: expected another name, of letters, digits, _ and -"
    yield from fields(data, DATASET, f"datasets.{name}.")


def about_data(data: Mapping, required: Sequence[str]) -> Lines:
    """Files for what is read, none for what is made, columns for what a row needs, shots."""
    source = data["source"]
    for split in SPLITS:
        path = data[split]
        if source not in FILES and path is not None:
            yield f"{split}={path!r}: source={source!r} reads no file: set it to None"
        elif source in FILES and split in required and not has_split(data, split):
            yield f"{split}=None: source={source!r} needs a file: name one"
        elif path is not None and not path.lower().endswith(tuple(READERS)):
            yield f"{split}={path!r}: expected a file that ends in {', '.join(READERS)}"
    if data["validation"] is not None and data["validation_examples"]:
        yield (
            f"validation_examples={data['validation_examples']}: of a file of their own all are "
            "taken: set it to 0, or validation to None"
        )
    yield from about_shares(data)
    yield from about_shots(data)
    if source in WORLDS and (unknown := set(data["levels"]) - set(WORLDS[source].levels)):
        most = max(WORLDS[source].levels)
        yield f"levels={data['levels']}: {source} has 1 to {most}, and no {min(unknown)}"
    for ours, column in data["columns"].items():
        if wrong := TEXT(column):
            yield f"columns.{ours}={column!r}: {wrong}, the name of a column"
    if source in FILES:
        try:
            check_columns(data["columns"], FILES[source].required, FILES[source].optional)
        except DataError as error:
            yield str(error)


def about_shares(data: Mapping) -> Lines:
    """What a hash holds out: of the one file of a dataset, and by nothing else."""
    for split in ("validation", "test"):
        share = data[f"{split}_share"]
        if share and data["source"] not in FILES:
            yield f"{split}_share={share}: source={data['source']!r} reads no file: set it to 0"
        elif share and data[split] is not None:
            yield f"{split}_share={share}: {split} has a file of its own: set it to 0"
    if data["validation_share"] and data["validation_examples"]:
        yield (
            f"validation_share={data['validation_share']}: validation_examples="
            f"{data['validation_examples']} are held out as well: set one of them to 0"
        )


def about_mixture(name: str, config: Mapping) -> Lines:
    """Datasets that can be one: of examples, with one template, of which some have a test split."""
    sections = sections_of(config)
    data, parts = sections[name], sections[name]["of"]
    if data["source"] != MIXTURE:
        if parts:
            yield f"of={parts}: only source='mixture' is made of others: set it to ()"
        return
    if len(parts) < 2 or len(set(parts)) < len(parts):
        yield f"of={parts}: expected two or more datasets, each once"
    for part in parts:
        if part not in sections or part == name:
            yield f"of={parts}: {part!r} is none of the other datasets{nearest(part, sections)}"
            continue
        other = sections[part]
        if other["source"] == MIXTURE or rows_of(other) != "examples":
            yield f"of={parts}: {part} is no dataset of examples"
        elif other["template"] != data["template"]:
            yield (
                f"of={parts}: {part} has template={other['template']!r}, the mixture "
                f"{data['template']!r}: expected the same"
            )
        elif other["shots"]:
            yield f"of={parts}: {part} has shots={other['shots']}, a mixture shows none: set to 0"
    if "test" in required_splits(name, config) and not offers(name, "test", sections):
        yield f"of={parts}: none of them has a test split"


def about_shots(data: Mapping) -> Lines:
    """Worked solutions to show, where that is known without the files."""
    shots, source = data["shots"], data["source"]
    if not shots:
        return
    if source in WORLDS and shots > data["train_examples"]:
        yield f"shots={shots}: only train_examples={data['train_examples']} are made"
    elif rows_of(data) != "examples":
        yield f"shots={shots}: {rows_of(data)} have no worked solutions to show: set it to 0"
    elif source in ("rubrics", "choices", MIXTURE):
        yield f"shots={shots}: source={source!r} has none to show: set it to 0"
    elif source == "rows" and "reasoning" not in data["columns"]:
        yield f"shots={shots}: columns.reasoning is missing: name the column of worked solutions"


def about_buckets(config: Mapping) -> Lines:
    """Buckets that end at the longest prompt."""
    buckets = config["data"]["buckets"]
    longest = max(data["max_prompt"] for data in sections_of(config).values())
    if max(buckets) != longest:
        yield f"data.buckets={buckets}: the largest must be max_prompt={longest}"


def about_pipeline(config: Mapping) -> Lines:
    """Stages that exist, and starts that come before."""
    stages, before = config["stages"], []
    for name in config["pipeline"]:
        if name not in stages:
            yield (
                f"pipeline: {name!r} is none of stages ({', '.join(stages)}){nearest(name, stages)}"
            )
            continue
        stage = stages[name]
        trained = [n for n in before if "start" in stages[n]]
        if name in before:
            yield f"pipeline: {name!r} is there twice; a stage has one name and one folder"
        start = stage.get("start")
        if start is not None and start not in (*trained, "base"):
            yield f"stages.{name}.start={start!r}: expected base or a training stage before it"
        ends = [("policies", policy) for policy in stage.get("policies", ())]
        ends += [(field, stage[field]) for field in ("policy", "teacher") if stage.get(field)]
        ends += judging(stage, config)
        known = (*trained, *config["models"], "base")
        for field, policy in ends:
            if policy not in known:
                yield (
                    f"stages.{name}.{field}: {policy!r} is neither base nor a training stage "
                    f"before it{nearest(policy, known)}"
                )
        learned = stage.get("rewards", {}).get("learned", {}).get("options", {})
        used = {"preferences": stage.get("preferences"), "solutions": stage.get("solutions"),
                "rewards.learned.options.model": learned.get("model")}  # fmt: skip
        for field, made in used.items():
            if made in stages and made not in before:
                yield f"stages.{name}.{field}={made!r}: the stage must stand before it"
        before.append(name)


def judging(stage: Mapping, config: Mapping) -> list[tuple[str, str]]:
    """The stages whose ends judge a stage's completions, with the fields that name their judges."""
    named = [
        (f"rewards.{reward}.options.judge", config["judges"].get(entry["options"].get("judge"), {}))
        for reward, entry in stage.get("rewards", {}).items()
    ]
    named += [("judges", config["judges"].get(name, {})) for name in stage.get("judges", ())]
    return [
        (field, judge["model"])
        for field, judge in named
        if judge.get("model") in config["stages"] and judge["replay"] is None
    ]
