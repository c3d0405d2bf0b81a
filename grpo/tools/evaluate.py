"""Evaluation of any checkpoint, as a run of its own that trains nothing."""

import copy
from typing import Any


def only_evaluation(config: dict[str, Any], path: str) -> dict[str, Any]:
    """The config with nothing but its first evaluation, of the model at a path."""
    config = copy.deepcopy(config)
    stages = config["stages"]
    name = next((n for n in config["pipeline"] if stages[n]["kind"] == "evaluate"), None)
    if name is None:
        return config | {"pipeline": ()}  # which `problems` will not have
    stages[name] |= {"policies": ("base",), "baselines": (), "baseline_prompt": None}
    config["model"]["path"] = path
    return config | {"pipeline": (name,), "stages": {name: stages[name]}}
