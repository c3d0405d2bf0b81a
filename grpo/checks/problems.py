"""What is wrong with a config: everything at once, before anything is loaded or compiled.

`problems(config)` is a list of lines, each beginning with the dotted path of a field: of the single
fields by the table in rules.py, where a field without a rule is unknown and a rule without its
field says what is missing; and, of a section whose single fields are fine, what they say together.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from grpo.algorithms.objective import Objective
from grpo.checks.rules import COMMON, KINDS, OF_TYPE, REWARD, STAGES, TEXT, Rule, one_of
from grpo.data import gsm8k, sources
from grpo.data.examples import REQUIRED, DataError, check_columns
from grpo.data.nearest import nearest
from grpo.rewards.batch import options_of
from grpo.rewards.compose import REWARDS, about_options, checked, faults
from models.config import SIZES
from models.lora import TARGETS

Lines = Iterator[str]
# Whose fields have names of the experiment's own, or of its reward functions.
OPEN = ("data.columns", "stages", "rewards", "options")
STAGE_NAME = re.compile(r"\w[\w-]*")  # it is that of a directory too
COLUMNS = {"gsm8k": gsm8k.OPTIONAL, "rows": sources.OPTIONAL}


def leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field; the open ones are taken as wholes."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in OPEN:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def fields(tree: Any, rules: Mapping[str, Rule], whole: tuple[str, ...], prefix: str) -> Lines:
    """What is wrong with single fields: unknown, missing, or of a value they may not have."""
    told = dict(leaves(tree)) if isinstance(tree, Mapping) else {}
    known = [*rules, *whole]
    for path, value in told.items():
        if path not in known:
            yield f"{prefix}{path}: unknown field{nearest(path, known)}"
        elif path in rules and (wrong := rules[path](value)):
            yield f"{prefix}{path}={value!r}: {wrong}"
    for path in known:
        if path not in told:
            yield f"{prefix}{path}: is missing; configs/base.py has its default"
        elif path in OPEN and not isinstance(told[path], Mapping):
            yield f"{prefix}{path}={told[path]!r}: expected named fields, as in configs/base.py"


def problems(config: Mapping) -> list[str]:
    """Everything that is wrong, a line each; what depends on a wrong field is not looked at."""
    found = list(fields(config, COMMON, ("data.columns", "stages"), ""))
    wrong = {name: list(stage_fields(name, stage)) for name, stage in named(config, "stages")}
    if not found:
        found.extend([*about_data(config), *about_devices(config)])
        for name in (name for name in wrong if not wrong[name]):
            stage = config["stages"][name]
            found.extend(f"stages.{name}.{line}" for line in ABOUT[stage["kind"]](stage, config))
        if not any(wrong.values()):
            found.extend(about_pipeline(config))
    return [*found, *itertools.chain(*wrong.values())]


def named(tree: Mapping, field: str) -> list[tuple[str, Any]]:
    """What stands in an open field, by name."""
    value = tree.get(field)
    return list(value.items()) if isinstance(value, Mapping) else []


def stage_fields(name: str, stage: Any) -> Lines:
    """What is wrong with single fields of a stage."""
    prefix, kind = f"stages.{name}.", stage.get("kind") if isinstance(stage, Mapping) else None
    if not STAGE_NAME.fullmatch(name) or name == "base":
        yield f"stages.{name}: expected another name, of letters, digits, _ and -"
    if kind not in KINDS:
        yield f"{prefix}kind={kind!r}: {one_of(*KINDS)(kind)}"
        return
    whole = ("kind", "rewards") if kind == "grpo" else ("kind",)
    yield from fields(stage, STAGES[kind], whole, prefix)
    for reward, entry in named(stage, "rewards"):
        yield from (f"{prefix}rewards.{reward}{line}" for line in reward_fields(reward, entry))


def reward_fields(name: str, entry: Any) -> Lines:
    """What is wrong with single fields of a reward, and with its options, by the signature."""
    yield from fields(entry, REWARD, ("options",), ".")
    if name not in REWARDS:
        yield f": unknown reward{nearest(name, REWARDS)}"
        return
    options = entry.get("options") if isinstance(entry, Mapping) else None
    if not isinstance(options, Mapping):
        return
    yield from (f".options.{line}" for line in about_options(name, options))
    for option, parameter in options_of(REWARDS[name]).items():
        rule = OF_TYPE.get(parameter.annotation)
        if option in options and rule and (wrong := rule(options[option])):
            yield f".options.{option}={options[option]!r}: {wrong}"


def about_data(config: Mapping) -> Lines:
    """Files for what is read, none for what is made; buckets that end at the longest prompt."""
    data = config["data"]
    for part in ("train", "test"):
        path = data[part]
        if data["source"] == "arithmetic" and path is not None:
            yield f"data.{part}={path!r}: data.source='arithmetic' reads no file: set it to None"
        elif data["source"] != "arithmetic" and path is None:
            yield f"data.{part}=None: data.source={data['source']!r} needs a file: name one"
        elif path is not None and not path.lower().endswith(tuple(sources.READERS)):
            yield f"data.{part}={path!r}: expected a file that ends in {', '.join(sources.READERS)}"
    if max(data["buckets"]) != data["max_prompt"]:
        yield f"data.buckets={data['buckets']}: the largest must be max_prompt={data['max_prompt']}"
    for ours, column in data["columns"].items():
        if wrong := TEXT(column):
            yield f"data.columns.{ours}={column!r}: {wrong}, the name of a column"
    if data["source"] in COLUMNS:
        try:
            check_columns(data["columns"], REQUIRED, COLUMNS[data["source"]])
        except DataError as error:
            yield f"data.{error}"


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
        trained = [n for n in before if stages[n]["kind"] != "evaluate"]
        if name in before:
            yield f"pipeline: {name!r} is there twice; a stage has one name and one folder"
        start = stage.get("start")
        if start is not None and start not in (*trained, "base"):
            yield f"stages.{name}.start={start!r}: expected base or a training stage before it"
        for policy in stage.get("policies", ()):
            if policy not in (*trained, "base"):
                yield (
                    f"stages.{name}.policies: {policy!r} is neither base nor a training stage "
                    f"before it{nearest(policy, (*trained, 'base'))}"
                )
        before.append(name)


def about_devices(config: Mapping) -> Lines:
    """What a mesh can cut."""
    mesh, model = config["mesh"], config["model"]
    heads = SIZES[model["size"]].num_heads
    if model["path"] is None and heads % mesh["tp"]:
        yield f"mesh.tp={mesh['tp']}: does not divide the {heads} heads of {model['size']}"
    wanted = mesh["fsdp"] * mesh["tp"]
    if wanted > 1 and wanted > len(jax.devices()):  # to ask starts the backend, which takes seconds
        yield f"mesh: fsdp * tp = {wanted} devices, here are {len(jax.devices())}"


def about_rows(rows: int, stage: Mapping, config: Mapping, what: str) -> Lines:
    """Rows of an update that microbatches and devices cut evenly."""
    parts, fsdp = stage["microbatches"], config["mesh"]["fsdp"]
    if parts > rows:
        yield f"microbatches={parts}: there are only {rows} rows ({what})"
    elif fsdp > 1 and rows % (parts * fsdp):
        yield (
            f"microbatches={parts}: {rows} rows ({what}) do not divide by it times mesh.fsdp={fsdp}"
        )


def about_training(stage: Mapping, config: Mapping) -> Lines:
    """The optimizer's schedule and the adapter's targets."""
    optimizer, lora = stage["optimizer"], stage["lora"]
    if (optimizer["final"] is None) != (optimizer["schedule"] == "constant"):
        wanted = "None" if optimizer["schedule"] == "constant" else "a share, such as 0.0"
        yield (
            f"optimizer.final={optimizer['final']}: "
            f"schedule={optimizer['schedule']!r} needs {wanted}"
        )
    if lora["rank"] is not None and not any(re.fullmatch(lora["targets"], t) for t in TARGETS):
        yield f"lora.targets={lora['targets']!r}: matches none of {', '.join(TARGETS)}"


def about_sft(stage: Mapping, config: Mapping) -> Lines:
    """An SFT stage."""
    yield from about_training(stage, config)
    yield from about_rows(stage["batch"], stage, config, "batch")
    longest = config["data"]["max_prompt"] + stage["max_target"]
    if stage["packing"] is not None and stage["packing"] < longest:
        yield (
            f"packing={stage['packing']}: an example may have {longest} tokens "
            "(data.max_prompt + max_target)"
        )


def about_groups(stage: Mapping) -> Lines:
    """Dynamic sampling: its rounds, and that groups are compared within themselves."""
    sampling, loss = stage["dynamic_sampling"], stage["loss"]
    if (stage["max_rounds"] > 1) != (sampling == "refill"):
        yield (
            f"max_rounds={stage['max_rounds']}: dynamic_sampling={sampling!r} "
            f"needs {'more than 1' if sampling == 'refill' else '1'}"
        )
    if sampling == "refill" and "batch" in (loss["baseline"], loss["scale"]):
        yield (
            "dynamic_sampling='refill': each round would have a baseline or scale of its own: use "
            "loss.baseline='group' and loss.scale='group' or 'none'"
        )


def about_grpo(stage: Mapping, config: Mapping) -> Lines:
    """A GRPO stage: rewards, objective, and how an iteration is cut."""
    yield from about_training(stage, config)
    yield from about_rewards(stage["rewards"])
    try:
        Objective(**stage["loss"])
    except ValueError as error:
        yield from (f"loss.{line}" for line in str(error).split("; "))
    if stage["loss"]["entropy_coef"] and not stage["entropy"]:
        yield "entropy=False: loss.entropy_coef needs it: set it to True, or the other to 0.0"
    rows = stage["prompts"] * stage["group"]
    if stage["prompts"] % stage["minibatches"]:
        yield f"minibatches={stage['minibatches']}: does not divide prompts={stage['prompts']}"
    else:
        yield from about_rows(
            rows // stage["minibatches"], stage, config, "prompts * group / minibatches"
        )
    yield from about_groups(stage)
    if stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: the completions of a group would be the same; expected more"


def about_rewards(rewards: Mapping) -> Lines:
    """A reward table: every entry by itself, then all together."""
    table = {}
    for name, entry in rewards.items():
        try:
            table |= [checked({"name": name, **entry})]
        except ValueError as error:
            yield str(error)
    if len(table) == len(rewards):
        yield from faults(table)


def about_evaluate(stage: Mapping, config: Mapping) -> Lines:
    """An evaluation: something to do, and ks that the samples allow."""
    if not stage["greedy"] and not stage["samples"]:
        yield "samples=0: with greedy=False there is nothing to do"
    if stage["samples"] and max(stage["ks"]) > stage["samples"]:
        yield f"ks={stage['ks']}: the largest is more than samples={stage['samples']}"


ABOUT: dict[str, Callable[[Mapping, Mapping], Lines]] = {
    "sft": about_sft,
    "grpo": about_grpo,
    "evaluate": about_evaluate,
}
