"""The training and test examples that a config's `data` names, and what is left of them.

arithmetic   made here                  gsm8k   in that dataset's form (gsm8k.py)
rows         files with any columns     (sources.py)
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from grpo.data.arithmetic import make_examples
from grpo.data.examples import Example
from grpo.data.filters import keep_short, require_disjoint, require_kept
from grpo.data.gsm8k import load_gsm8k
from grpo.data.sources import load_examples

Report = dict[str, Any]


class Dataset(NamedTuple):
    """Examples, and what was found on the way to them."""

    train: list[Example]
    test: list[Example]
    report: Report


def load_dataset(data: Mapping[str, Any], seed: int) -> Dataset:
    """The dataset of a config; test questions are never trained on."""
    report: Report = {"source": data["source"]}
    parts: dict[str, list[Example]] = {}
    for part in ("train", "test"):
        if data["source"] == "arithmetic":
            count = data[f"{part}_examples"]
            parts[part] = make_examples(seed, count, data["levels"], part, data["worked"])
            continue
        path, columns, max_bad = data[part], data["columns"], data["max_bad"]
        if data["source"] == "gsm8k":
            parts[part], found = load_gsm8k(path, columns, data["strip_commas"], max_bad)
        else:
            parts[part], found = load_examples(path, columns, max_bad)
        report |= {f"{part}/{key}": value for key, value in found.items()}
    require_disjoint(parts["train"], parts["test"], str(data["test"]))
    return Dataset(parts["train"], parts["test"], report)


def drop_long(
    dataset: Dataset, length_of: Callable[[Example], int], data: Mapping[str, Any]
) -> Dataset:
    """The examples whose prompts fit, and their share; too small a share is an error."""
    kept = {}
    for part in ("train", "test"):
        name = pathlib.Path(data[part] or data["source"]).name
        examples, ratio = keep_short(getattr(dataset, part), length_of, data["max_prompt"])
        require_kept(ratio, data["min_kept"], f"{name} ({part}, prompts of {data['max_prompt']})")
        kept[part] = examples
        dataset.report[f"{part}/kept"] = ratio
        dataset.report[f"{part}/examples"] = len(examples)
    return Dataset(**kept, report=dataset.report)
