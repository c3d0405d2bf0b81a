"""Evaluation of any checkpoint, as a run of its own that trains nothing."""

import copy
from typing import Any

from grpo.data.forms import FILES


def only_evaluation(config: dict[str, Any], path: str, file: str | None = None) -> dict[str, Any]:
    """The config with nothing but its first evaluation, of the model at a path.

    With a file all of its examples are asked, or none where one does not fit, and no other data are
    read; its rows are as data.columns says, or of the form that data.source has.
    """
    config = copy.deepcopy(config)
    stages = config["stages"]
    name = next((n for n in config["pipeline"] if stages[n]["kind"] == "evaluate"), None)
    if name is None:
        return config | {"pipeline": ()}  # which `problems` will not have
    stages[name] |= {"policies": ("base",), "baselines": (), "baseline_prompt": None}
    config["model"]["path"] = path
    if file is not None:
        source, buckets = config["data"]["source"], config["data"]["buckets"]
        config["data"] |= {
            "source": source if source in FILES else "rows", "train": None, "validation": None,
            "test": file, "validation_examples": 0, "validation_share": 0.0, "test_share": 0.0,
            "shots": 0, "contamination": "off", "of": (), "max_prompt": max(buckets),
            "min_kept": 1.0, "max_bad": 0.0,
        }  # fmt: skip
        config["datasets"] = {}
        config["evaluation"] |= {"data": None, "split": "test"}
        stages[name] |= {"data": None, "split": "test", "examples": None}
    return config | {"pipeline": (name,), "stages": {name: stages[name]}}
