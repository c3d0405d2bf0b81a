"""What a config may say: every problem of it at once, before anything is loaded or compiled.

`problems(config)` is a list of lines that begin with the dotted path of a field. The table RULES
has a rule for each field; a field without a rule is unknown, and a rule without its field says
which one is missing. Rules about several fields follow below it. A field's default and meaning
stand in configs/base.py, where this file does not look.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from grpo.algorithms.objective import Objective
from grpo.data.arithmetic import LEVELS
from grpo.data.sources import READERS
from grpo.data.templates import TEMPLATES
from grpo.rewards.compose import REWARDS, reward_table
from models.attention import ATTENTION
from models.config import SIZES
from models.gemma import REMAT
from models.lora import LoraConfig

Rule = Callable[[Any], str | None]  # what is wrong with a value
Lines = Iterator[str]
KINDS = ("sft", "grpo", "evaluate")


def one_of(*choices: str | None) -> Rule:
    """Names."""

    def rule(value: Any) -> str | None:
        if value in choices:
            return None
        return f"expected one of {', '.join(map(str, choices))}{nearest(value, choices)}"

    return rule


def number(kind: type, low: float, high: float = math.inf, *, above: bool = False) -> Rule:
    """A number from `low` on, or above it."""

    def rule(value: Any) -> str | None:
        allowed = int if kind is int else int | float
        bound = f"{'more than' if above else 'at least'} {low:g}"
        bound += f" and at most {high:g}" if high < math.inf else ""
        if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
            return f"expected {'an integer' if kind is int else 'a number'}, {bound}"
        is_inside = (value > low if above else value >= low) and value <= high
        return None if is_inside else f"expected {bound}"

    return rule


def optional(rule: Rule) -> Rule:
    """None, or what the rule allows."""
    return lambda value: None if value is None else rule(value)


def of_type(kind: type, name: str) -> Rule:
    """Any value of a type."""
    return lambda value: None if isinstance(value, kind) else f"expected {name}"


def regex(value: Any) -> str | None:
    """A regular expression."""
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        return f"is no regular expression ({error})"
    return None


def several(rule: Rule, least: int = 1) -> Rule:
    """A tuple of what the rule allows."""

    def check(value: Any) -> str | None:
        if not isinstance(value, tuple | list) or len(value) < least:
            return f"expected a tuple of at least {least}, such as (x,)"
        return next((wrong for wrong in map(rule, value) if wrong), None)

    return check


TEXT, FLAG = of_type(str, "a text"), of_type(bool, "True or False")
COUNT, FROM_0 = number(int, 1), number(int, 0)
SHARE, POSITIVE = number(float, 0, 1), number(float, 0, above=True)

COMMON: dict[str, Rule] = {
    "seed": number(int, 0, 2**31 - 1),
    "model.path": optional(TEXT),
    "model.revision": optional(TEXT),
    "model.size": one_of(*SIZES),
    "model.vocab": number(int, 300, 2**20),  # 256 bytes, the signs of a chat, and some words
    "model.dtype": one_of("float32", "bfloat16"),
    "model.attention": one_of(*ATTENTION),
    "model.remat": one_of(*REMAT),
    "mesh.fsdp": COUNT,
    "mesh.tp": COUNT,
    "data.source": one_of("arithmetic", "gsm8k", "rows"),
    "data.train": optional(TEXT),
    "data.test": optional(TEXT),
    "data.strip_commas": FLAG,
    "data.max_bad": SHARE,
    "data.levels": several(
        lambda level: None if level in LEVELS else f"expected levels of {', '.join(map(str, LEVELS))}"
    ),
    "data.worked": SHARE,
    "data.train_examples": COUNT,
    "data.test_examples": COUNT,
    "data.template": one_of(*TEMPLATES),
    "data.max_prompt": COUNT,
    "data.buckets": several(COUNT),
    "data.min_kept": SHARE,
    "pipeline": several(TEXT),
    "evaluation.examples": COUNT,
    "evaluation.batch": COUNT,
    "evaluation.max_new_tokens": COUNT,
    "checkpoint.keep_last": COUNT,
    "checkpoint.best_mode": one_of("max", "min"),
    "checkpoint.allow_fresh": FLAG,
    "log.every_s": number(float, 0),
}
SAMPLING: dict[str, Rule] = {
    "sampling.temperature": number(float, 0, 100),
    "sampling.top_k": FROM_0,
    "sampling.top_p": number(float, 0, 1, above=True),
    "sampling.min_p": SHARE,
}
TRAINED: dict[str, Rule] = {
    "start": optional(TEXT),
    "lora.rank": optional(COUNT),
    "lora.alpha": POSITIVE,
    "lora.targets": regex,
    "lora.rslora": FLAG,
    "optimizer.learning_rate": number(float, 0, 1, above=True),
    "optimizer.schedule": one_of("constant", "cosine"),
    "optimizer.warmup": SHARE,
    "optimizer.final": optional(SHARE),
    "optimizer.schedule_updates": optional(COUNT),
    "optimizer.b1": number(float, 0, 0.9999),
    "optimizer.b2": number(float, 0, 0.99999),
    "optimizer.eps": POSITIVE,
    "optimizer.weight_decay": number(float, 0),
    "optimizer.decayed": regex,
    "optimizer.clip_norm": optional(POSITIVE),
    "microbatches": COUNT,
    "evaluate_every": FROM_0,
    "checkpoint_every": COUNT,
}
STAGES: dict[str, dict[str, Rule]] = {
    "sft": {
        **TRAINED,
        "steps": COUNT,
        "examples": optional(COUNT),
        "batch": COUNT,
        "max_target": COUNT,
        "packing": optional(COUNT),
    },
    "grpo": {
        **TRAINED,
        **SAMPLING,
        "iterations": COUNT,
        "prompts": COUNT,
        "group": number(int, 2),
        "max_new_tokens": COUNT,
        "epochs": COUNT,
        "minibatches": COUNT,
        "dynamic_sampling": one_of("off", "drop", "refill"),
        "max_rounds": COUNT,
        "reference": one_of("start", "base"),
        "entropy": FLAG,
        "shuffle_rewards": FLAG,
    },
    "evaluate": {
        **SAMPLING,
        "policies": several(TEXT),
        "examples": optional(COUNT),
        "batch": COUNT,
        "max_new_tokens": COUNT,
        "greedy": FLAG,
        "samples": FROM_0,
        "ks": several(COUNT),
        "shown": FROM_0,
    },
}
OPEN = ("data.columns", "rewards", "loss")  # checked as wholes, by those who read them


def nearest(name: Any, known: Iterable) -> str:
    """A hint at the known name that looks most like this one."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


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
        yield f"data.buckets={data['buckets']}: the largest has to be max_prompt={data['max_prompt']}"
    if config["model"]["path"] is None:
        size = SIZES[config["model"]["size"]]
        if size.vocab_size < config["model"]["vocab"]:
            yield f"model.vocab={config['model']['vocab']}: {config['model']['size']} has {size.vocab_size}"


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
    mesh = config["mesh"]
    if config["model"]["path"] is None and SIZES[config["model"]["size"]].num_heads % mesh["tp"]:
        heads = SIZES[config["model"]["size"]].num_heads
        yield f"mesh.tp={mesh['tp']}: does not divide the {heads} heads of {config['model']['size']}"


def about_rows(rows: int, stage: Mapping, config: Mapping, what: str) -> Lines:
    """Rows of an update that microbatches and devices cut evenly."""
    parts, fsdp = stage["microbatches"], config["mesh"]["fsdp"]
    if parts > rows:
        yield f"microbatches={parts}: there are only {rows} rows ({what})"
    elif fsdp > 1 and rows % (parts * fsdp):
        yield f"microbatches={parts}: {rows} rows ({what}) do not divide by it times mesh.fsdp={fsdp}"


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
        yield f"packing={stage['packing']}: an example may have {longest} tokens (data.max_prompt + max_target)"


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
            wrong = [f"loss.{line}" for line in Objective.problems(Objective.unchecked(loss))]
        except TypeError as error:
            wrong = [f"loss: {error}"]
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
