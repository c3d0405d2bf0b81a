"""From a config to what a run needs: its data, tokenizer, sizes and mesh, and where its weights are.

What is wrong with a file shows here, before anything is compiled: the data first, then the model's
directory. Random weights, and those of another run, are made when they are asked for.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.data.datasets import drop_long, load_dataset
from grpo.data.templates import TEMPLATES, prompt_ids, prompt_text, target_text
from grpo.reporting.progress import Progress
from grpo.runs.open_policy import source_of
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop
from models.sharding import make_mesh

MOST_TEXTS = 2000  # that a tokenizer is trained on


def set_up(
    config: Mapping[str, Any], workdir: pathlib.Path, progress: Progress, stop: Stop
) -> tuple[Run, Policies]:
    """The run of a config, and its policies."""
    data = load_dataset(config["data"], config["seed"])
    template = TEMPLATES[config["data"]["template"]]
    devices = config["mesh"]["fsdp"] * config["mesh"]["tp"]
    mesh = make_mesh(**config["mesh"]) if devices > 1 else None

    def texts() -> Sequence[str]:
        return [
            prompt_text(e, template) + (target_text(e, template) if e["reasoning"] else "")
            for e in data.train[:MOST_TEXTS]
        ]

    source = source_of(config, workdir, mesh, texts)
    run = Run(
        config=config,
        workdir=workdir,
        data=drop_long(
            data, lambda e: len(prompt_ids(source.tokenizer, e, template)), config["data"]
        ),
        progress=progress,
        stop=stop,
    )
    size = source.config
    progress.say(
        f"{config['model']['path'] or config['model']['size']}: {size.num_layers} layers, "
        f"width {size.width}, {size.vocab_size} pieces; {len(run.data.train)} training and "
        f"{len(run.data.test)} test examples; {' -> '.join(config['pipeline'])} in {workdir}"
    )
    return run, Policies(config, workdir, source.load)
