"""What each field of a config may be: a rule for every path.

A rule says what is wrong with a value, or None. A field's default and meaning stand in
configs/base.py, where this file does not look; what several fields may be together is said in
problems.py.
"""

import dataclasses
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from grpo.algorithms.decoding import DECODINGS
from grpo.algorithms.distillation import Distillation
from grpo.algorithms.objective import Objective
from grpo.algorithms.preference import Preference
from grpo.algorithms.presets import DISTILLATIONS, PREFERENCES, PRESETS
from grpo.checks.durations import seconds_of
from grpo.data import contamination
from grpo.data.curriculum import DIFFICULTY, ORDERS
from grpo.data.datasets import MIXTURE, SPLITS
from grpo.data.forms import FILES
from grpo.data.gsm8k import CALCULATOR
from grpo.data.nearest import nearest
from grpo.data.templates import TEMPLATES
from grpo.data.worlds import WORLDS
from grpo.judges.prompts import PROMPTS, SCALES
from grpo.judges.rubrics import COLUMN, RUBRICS, STEPS
from grpo.rewards.batch import Count, Share
from models.attention import ATTENTION
from models.config import SIZES
from models.gemma import REMAT
from models.sharding import FROZEN

Rule = Callable[[Any], str | None]
LARGEST = sys.float_info.max


def one_of(*choices: Any) -> Rule:
    """Names."""

    def rule(value: Any) -> str | None:
        if value in choices:
            return None
        return f"expected one of {', '.join(map(str, choices))}{nearest(value, choices)}"

    return rule


def number(
    kind: type, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> Rule:
    """A finite number from `low` on, or above it."""
    bounds = [f"{'more than' if above else 'at least'} {low}"] * (low > -math.inf)
    bounds += [f"at most {high}"] * (high < math.inf)
    expected = ", ".join(["an integer" if kind is int else "a number", *bounds])

    def rule(value: Any) -> str | None:
        is_number = isinstance(value, int if kind is int else int | float)
        is_number = is_number and not isinstance(value, bool) and abs(value) <= LARGEST
        is_inside = is_number and low <= value <= high and (value > low or not above)
        return None if is_inside else f"expected {expected}"

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


def duration(value: Any) -> str | None:
    """A time, such as '8h40m'."""
    try:
        seconds_of(value if isinstance(value, str) else "")
    except ValueError as error:
        return str(error)
    return None


def several(rule: Rule, least: int = 1) -> Rule:
    """A tuple of what the rule allows, of so many at least."""

    def check(value: Any) -> str | None:
        if not isinstance(value, tuple | list):
            return "expected a tuple, such as (x,)"
        if len(value) < least:
            return "expected a tuple that is not empty, such as (x,)"
        return next((wrong for wrong in map(rule, value) if wrong), None)

    return check


TEXT, FLAG = of_type(str, "a text"), of_type(bool, "True or False")
NAMED = of_type(Mapping, "named fields, as in configs/base.py")
COUNT, FROM_0, SEED = number(int, 1), number(int, 0), number(int, 0, 2**31 - 1)
SHARE, POSITIVE, NUMBER = number(float, 0, 1), number(float, 0, above=True), number(float)

DATASET: dict[str, Rule] = {
    "source": one_of(*WORLDS, *FILES, MIXTURE),
    "train": optional(TEXT),
    "validation": optional(TEXT),
    "test": optional(TEXT),
    "columns": NAMED,
    "strip_commas": FLAG,
    "calculator": one_of(*CALCULATOR),
    "max_bad": SHARE,
    "levels": several(one_of(*sorted({n for world in WORLDS.values() for n in world.levels}))),
    "worked": SHARE,
    "train_examples": COUNT,
    "validation_examples": FROM_0,
    "test_examples": COUNT,
    "validation_share": number(float, 0, 0.5),
    "test_share": number(float, 0, 0.5),
    "contamination": one_of(*contamination.CHOICES),
    "ngram": COUNT,
    "of": several(TEXT, least=0),
    "mixing_temperature": number(float, 0.1, 100),
    "template": one_of(*TEMPLATES),
    "shots": FROM_0,
    "max_prompt": COUNT,
    "min_kept": SHARE,
}
MODEL: dict[str, Rule] = {
    "path": optional(TEXT),
    "revision": optional(TEXT),
    "size": one_of(*SIZES),
    "vocab": number(int, 300, 2**20),  # 256 bytes, the signs of a chat, and some words
    "whole": several(TEXT, least=0),
    "dtype": one_of("float32", "bfloat16"),
    "param_dtype": one_of("float32", "bfloat16"),
    "attention": one_of(*ATTENTION),
    "remat": one_of(*REMAT),
    "unroll": COUNT,
    "share_prompts": FLAG,
    "frozen_weights": one_of(*FROZEN),
    "seats": optional(COUNT),
    "halvings": number(int, 0, 8),
}
MESH: dict[str, Rule] = {"fsdp": COUNT, "tp": COUNT, "first": number(int, 0)}
JUDGE: dict[str, Rule] = {
    **dict.fromkeys(("model", "url", "replay", "name", "key"), optional(TEXT)),
    "prompt": one_of(*PROMPTS),
    "rubric": one_of(*RUBRICS, COLUMN, STEPS),
    "scale": one_of(*SCALES),
    "scores": one_of("soft", "hard"),
    "least_mass": SHARE,
    "temperature": number(float, 0, 100),
    **dict.fromkeys(("max_prompt", "batch", "max_tokens", "concurrency", "attempts"), COUNT),
    **dict.fromkeys(("seconds", "batch_seconds"), POSITIVE),
}
COMMON: dict[str, Rule] = {
    "seed": SEED,
    "patience": COUNT,
    "time_budget": optional(duration),
    **{f"model.{field}": rule for field, rule in MODEL.items()},
    "models": NAMED,
    "meshes": NAMED,
    "judges": NAMED,
    "mesh.fsdp": COUNT,
    "mesh.tp": COUNT,
    **{f"data.{field}": rule for field, rule in DATASET.items()},
    "data.buckets": several(COUNT),
    "datasets": NAMED,
    "pipeline": several(TEXT),
    "stages": NAMED,
    "evaluation.data": optional(TEXT),
    "evaluation.split": one_of(*SPLITS),
    "evaluation.examples": COUNT,
    "evaluation.batch": COUNT,
    "evaluation.max_new_tokens": COUNT,
    "checkpoint.keep_last": COUNT,
    "checkpoint.best_mode": one_of("max", "min"),
    "checkpoint.allow_fresh": FLAG,
    "log.every_s": number(float, 0),
    "log.tokens": FLAG,
}
SAMPLING: dict[str, Rule] = {
    "sampling.temperature": number(float, 0, 100),
    "sampling.top_k": FROM_0,
    "sampling.top_p": number(float, 0, 1, above=True),
    "sampling.min_p": SHARE,
}
DECODING: dict[str, Rule] = {
    "sampling.preset": one_of(*DECODINGS),
    **{field: optional(rule) for field, rule in SAMPLING.items()},
    "sampling.seed": optional(SEED),
}
TRAINED: dict[str, Rule] = {
    "data": optional(TEXT),
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
# By annotation: of the fields of an Objective, where None is what the preset says, and which says
# itself what values there are and what goes together; and of the options of a reward function,
# where others are not looked at.
OF_TYPE: dict[Any, Rule] = {
    str: TEXT,
    str | None: optional(TEXT),
    bool: FLAG,
    int: number(int),
    int | None: optional(number(int)),
    float: NUMBER,
    float | None: optional(NUMBER),
    Count: COUNT,
    Share: SHARE,
    tuple[str, ...]: several(TEXT),
}


def rule_of(annotation: Any) -> Rule | None:
    """The rule of a keyword by its annotation, if there is one."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return one_of(*parts)
    if annotation not in OF_TYPE and types.NoneType in parts:
        rule = rule_of(next(part for part in parts if part is not types.NoneType))
        return rule and optional(rule)
    return OF_TYPE.get(annotation)


LOSS: dict[str, Rule] = {
    "loss.preset": one_of(*PRESETS),
    **{f"loss.{f.name}": optional(OF_TYPE[f.type]) for f in dataclasses.fields(Objective)},
}
DISTILLATION: dict[str, Rule] = {
    "loss.preset": one_of(*DISTILLATIONS),
    **{f"loss.{f.name}": optional(OF_TYPE[f.type]) for f in dataclasses.fields(Distillation)},
}
PREFERENCE: dict[str, Rule] = {
    "loss.preset": one_of(*PREFERENCES),
    **{f"loss.{f.name}": optional(OF_TYPE[f.type]) for f in dataclasses.fields(Preference)},
}
CURRICULUM: dict[str, Rule] = {
    "curriculum.order": one_of(*ORDERS),
    "curriculum.by": one_of(*DIFFICULTY),
    "curriculum.buckets": optional(number(int, 2)),
    "curriculum.metric": one_of("right", "reward"),
    "curriculum.threshold": SHARE,
    "curriculum.window": COUNT,
    "curriculum.replay": number(float, 0, 0.9),
}
REWARD: dict[str, Rule] = {
    "weight": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "gate": optional(TEXT),
    "domains": several(TEXT, least=0),
    "options": NAMED,
}
