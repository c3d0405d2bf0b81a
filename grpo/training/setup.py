"""From a config to what a run needs: data, tokenizer, sizes and mesh now, weights when asked for.

What is wrong with a file shows here, before anything is compiled: the data first, then the
tokenizer and the headers of the weights, then the weights.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo.data.datasets import Dataset, drop_long, load_dataset
from grpo.data.templates import TEMPLATES, prompt_ids, prompt_text, target_text
from grpo.training.display import Progress
from grpo.training.policies import Policies, random_params
from grpo.training.run import Run, Stop
from models.config import SIZES
from models.model import load_model
from models.sharding import make_mesh
from models.tokenizer import Tokenizer, train_tokenizer

MOST_TEXTS = 2000  # that a tokenizer is trained on


def set_up(
    config: Mapping[str, Any], workdir: pathlib.Path, progress: Progress, stop: Stop
) -> tuple[Run, Policies]:
    """The run of a config, and its policies."""
    model, data = config["model"], load_dataset(config["data"], config["seed"])
    devices = config["mesh"]["fsdp"] * config["mesh"]["tp"]
    mesh = make_mesh(**config["mesh"]) if devices > 1 else None
    loaded = None
    if model["path"] is None:
        tokenizer = trained_tokenizer(config, workdir, data)
        size = dataclasses.replace(SIZES[model["size"]], vocab_size=tokenizer.vocab_size)
    else:
        loaded = load_model(
            model["path"], revision=model["revision"], dtype=model["param_dtype"], mesh=mesh
        )
        if loaded.tokenizer is None:
            raise ValueError(f"model.path={model['path']!r}: has no tokenizer.model")
        tokenizer, size = loaded.tokenizer, loaded.config
    template = TEMPLATES[config["data"]["template"]]
    data = drop_long(data, lambda e: len(prompt_ids(tokenizer, e, template)), config["data"])
    run = Run(
        config=config,
        workdir=workdir,
        tokenizer=tokenizer,
        size=size,
        mesh=mesh,
        data=data,
        progress=progress,
        stop=stop,
    )
    return run, Policies(run, lambda: random_params(run) if loaded is None else loaded.params)


def trained_tokenizer(config: Mapping[str, Any], workdir: pathlib.Path, data: Dataset) -> Tokenizer:
    """The tokenizer of the run's directory, trained on the data's own texts the first time."""
    file = workdir / "tokenizer.model"
    if not file.is_file():
        template = TEMPLATES[config["data"]["template"]]
        texts = [
            prompt_text(example, template)
            + (target_text(example, template) if example["reasoning"] else "")
            for example in data.train[:MOST_TEXTS]
        ]
        draft = file.with_suffix(".tmp")
        draft.write_bytes(train_tokenizer(texts, config["model"]["vocab"]))
        draft.replace(file)
    return Tokenizer.load(file, SIZES[config["model"]["size"]].family)
