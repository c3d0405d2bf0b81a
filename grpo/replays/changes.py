"""Another loss, clip, advantage or learning rate for an update: fields of its stage, checked.

What an update learns from stays: a field that changes what is sampled, or into how many updates it
is cut, is refused. The others are checked as those of a config are. Fields of the loss that are as
its preset has them follow it: they are dropped where the change leaves them nothing to do, and
replaced where it names another preset.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo.algorithms.presets import resolve
from grpo.checks.problems import stage_fields
from grpo.checks.sections import about_reading
from grpo.data.nearest import nearest
from grpo.replays.place import STAGES, ReplayError, kind_of

Config = Mapping[str, Any]
ASKED = {"forecast_every", "by_reward_every"}  # of the run's own update, not of the other one
WORDS = {"None": None, "True": True, "False": False}


def changes_of(words: Sequence[str]) -> dict[str, Any]:
    """Fields and their values, from texts such as loss.kl_coef=0."""
    found = {}
    for word in words:
        field, equals, text = word.partition("=")
        if not equals or not field:
            raise ReplayError(f"--set={word}: expected a field and a value: --set=loss.kl_coef=0")
        found[field] = value_of(text)
    return found


def value_of(text: str) -> Any:
    """None, True, False, a number, or the text itself."""
    if text in WORDS:
        return WORDS[text]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float) else text


def with_changes(config: Config, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some fields of a stage changed."""
    stage = copy.deepcopy(dict(config["stages"][name]))
    kind, known = kind_of(config, name), paths(stage)
    for field in changes:
        if field not in known:
            raise ReplayError(f"--set={field}: unknown field of {name}{nearest(field, known)}")
        if field.partition(".")[0] not in kind.may:
            raise ReplayError(
                f"--set={field}: would change the batch, and not the update alone; what may change "
                f"is {', '.join(kind.may)}"
            )
    if "loss" in stage:
        stage["loss"] = of_preset(stage["loss"])
    for field, value in changes.items():
        *sections, last = field.split(".")
        section = stage
        for part in sections:
            section = section[part]
        section[last] = value
    stage |= dict.fromkeys(ASKED & stage.keys(), 0)
    changed = {**config, "stages": {**config["stages"], name: stage}}
    for line in wrong_in(changed, name):
        raise ReplayError(f"stages.{name}.{line}")
    if "loss" in stage:
        stage["loss"] = resolve(stage["loss"])
    for line in kind.against(config["stages"][name], stage, list(changes)):
        raise ReplayError(line)
    return changed


def paths(stage: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted paths of all fields."""
    found = []
    for key, value in stage.items():
        path = f"{prefix}{key}"
        found += paths(value, f"{path}.") if isinstance(value, Mapping) else [path]
    return found


def of_preset(loss: Mapping[str, Any]) -> dict[str, Any]:
    """A loss section that says only in what it differs from its preset."""
    preset = resolve({"preset": loss["preset"]})
    return {
        field: value if field == "preset" or value != preset.get(field) else None
        for field, value in loss.items()
    }


def wrong_in(config: Config, name: str) -> Iterator[str]:
    """What is wrong with a stage, each line from the field on."""
    stage, prefix = config["stages"][name], f"stages.{name}."
    lines = [line.removeprefix(prefix) for line in stage_fields(name, stage, STAGES)]
    lines = lines or list(about_reading(stage, config))
    yield from lines or STAGES[stage["kind"]].check(stage, config)
