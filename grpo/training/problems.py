"""What is wrong with a config: everything at once, before anything is loaded or compiled.

`problems(config)` is a list of lines, each beginning with the dotted path of a field: first the
single fields, by the table in rules.py, where a field without a rule is unknown and a rule without
its field says what is missing; if these are fine, what several fields say together.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from grpo.algorithms.objective import Objective
from grpo.data.sources import READERS
from grpo.rewards.compose import reward_table
from grpo.training.rules import COMMON, KINDS, STAGES, Rule, nearest, one_of
from models.config import SIZES
from models.lora import LoraConfig

Lines = Iterator[str]
OPEN = ("data.columns", "rewards", "loss")  # checked as wholes, by those who read them


def leaves(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field; the open ones are taken as wholes."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in OPEN and key != "stages":
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def fields(tree: Mapping, rules: Mapping[str, Rule], whole: tuple[str, ...], prefix: str) -> Lines:
    """What is wrong with single fields: unknown, missing, or of a value they may not have."""
    told = dict(leaves(tree))
    known = [*rules, *whole]
    for path, value in told.items():
        if path not in known:
            yield f"{prefix}{path}: unknown field{nearest(path, known)}"
        elif path in rules and (wrong := rules[path](value)):
            yield f"{prefix}{path}={value!r}: {wrong}"
    for path in known:
        if path not in told:
            yield f"{prefix}{path}: is missing"


def problems(config: Mapping) -> list[str]:
    """Everything that is wrong, a line each; what depends on a wrong field is not looked at."""
    found = list(fields(config, COMMON, ("data.columns", "stages"), ""))
    for name, stage in config.get("stages", {}).items():
        prefix, kind = f"stages.{name}.", stage.get("kind")
        if kind not in KINDS:
            found.append(f"{prefix}kind={kind!r}: {one_of(*KINDS)(kind)}")
            continue
        whole = ("kind", "rewards", "loss") if kind == "grpo" else ("kind",)
        found.extend(fields(stage, STAGES[kind], whole, prefix))
    if found:
        return found
    found.extend([*about_data(config), *about_pipeline(config), *about_devices(config)])
    for name, stage in config["stages"].items():
        found.extend(f"stages.{name}.{line}" for line in ABOUT[stage["kind"]](stage, config))
    return found


def about_data(config: Mapping) -> Lines:
    """Files for what is read, none for what is made; buckets that end at the longest prompt."""
    data = config["data"]
    for part in ("train", "test"):
        path = data[part]
        if data["source"] == "arithmetic" and path is not None:
            yield f"data.{part}={path!r}: data.source='arithmetic' reads no file: set it to None"
        elif data["source"] != "arithmetic" and path is None:
            yield f"data.{part}=None: data.source={data['source']!r} needs a file"
        elif path is not None and not path.lower().endswith(tuple(READERS)):
            yield f"data.{part}={path!r}: expected a file that ends in {', '.join(READERS)}"
    if max(data["buckets"]) != data["max_prompt"]:
        yield f"data.buckets={data['buckets']}: the largest must be max_prompt={data['max_prompt']}"


def about_pipeline(config: Mapping) -> Lines:
    """Stages that exist, and starts that come before."""
    stages, before = config["stages"], []
    for name in config["pipeline"]:
        if name not in stages:
            yield f"pipeline: {name!r} is no stage{nearest(name, stages)}"
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
    wanted, there = mesh["fsdp"] * mesh["tp"], len(jax.devices())
    if wanted > there:
        yield f"mesh: fsdp * tp = {wanted} devices, here are {there}"


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
    if lora["rank"] is not None:
        try:
            LoraConfig(**lora)
        except ValueError as error:
            yield f"lora: {error}"


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


def about_grpo(stage: Mapping, config: Mapping) -> Lines:
    """A GRPO stage: rewards, objective, and how an iteration is cut."""
    yield from about_training(stage, config)
    try:
        reward_table({"name": name, **entry} for name, entry in stage["rewards"].items())
    except (ValueError, TypeError) as error:
        yield str(error)
    loss = dict(stage["loss"])
    known = Objective.__dataclass_fields__
    wrong = [f"loss.{f}: unknown field{nearest(f, known)}" for f in loss if f not in known]
    wrong += [f"loss.{f}: is missing" for f in known if f not in loss]
    if not wrong:
        try:
            Objective(**loss)
        except (ValueError, TypeError) as error:
            wrong = [f"loss.{line}" for line in str(error).split("; ")]
    yield from wrong
    rows = stage["prompts"] * stage["group"]
    if stage["prompts"] % stage["minibatches"]:
        yield f"minibatches={stage['minibatches']}: does not divide prompts={stage['prompts']}"
    else:
        yield from about_rows(
            rows // stage["minibatches"], stage, config, "prompts * group / minibatches"
        )
    if (stage["max_rounds"] > 1) != (stage["dynamic_sampling"] == "refill"):
        yield (
            f"max_rounds={stage['max_rounds']}: dynamic_sampling={stage['dynamic_sampling']!r} "
            f"needs {'more than 1' if stage['dynamic_sampling'] == 'refill' else '1'}"
        )
    if stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: the completions of a group would all be the same"


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
