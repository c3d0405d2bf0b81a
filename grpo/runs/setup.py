"""From a config to what a run needs: data, tokenizer, sizes and mesh, and where its weights are.

What is wrong with a file shows here, before anything is compiled: the data first, then the model's
directory. Random weights, and those of another run, are made when they are asked for.
"""

import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo.data.baselines import require_fitting
from grpo.data.datasets import SPLITS, Dataset, drop_long, load_datasets, reads_of, sections_of
from grpo.data.examples import DataError, Example
from grpo.data.making import LOOK_EVERY
from grpo.data.templates import prompt_ids, prompt_text, target_text
from grpo.reporting.progress import Progress
from grpo.runs.meshes import mesh_of, own_mesh
from grpo.runs.open_policy import Source, source_of
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop
from grpo.runs.teachers import require_same_tokens
from models.checkpoints.files import CheckpointError
from models.tokenizer import Tokenizer

MOST_TEXTS = 2000  # of each dataset, that a tokenizer is trained on


def set_up(
    config: Mapping[str, Any], workdir: pathlib.Path, progress: Progress, stop: Stop
) -> tuple[Run, Policies]:
    """The run of a config, and its policies."""
    sections = sections_of(config)
    loaded = load_datasets(sections, config["seed"], stop.check)
    require_left(config, loaded)

    def texts() -> Sequence[str]:
        # A mixture has no texts of its own.
        own = [dataset for dataset in loaded.values() if dataset.mixing is None]
        return [text for dataset in own for text in texts_of(dataset)]

    def another(name: str, model: Mapping[str, Any]) -> Source:
        try:
            return source_of({**config, "model": model}, workdir, mesh_of(config, name), texts)
        except CheckpointError as error:
            raise CheckpointError(f"models.{name}: {error}") from None

    source = source_of(config, workdir, own_mesh(config), texts)
    others = {name: another(name, model) for name, model in config["models"].items()}
    for name in config["pipeline"]:
        if (teacher := config["stages"][name].get("teacher")) in others:
            require_same_tokens(name, source, others[teacher])
    run = Run(
        config=config,
        workdir=workdir,
        datasets={
            name: fitting(dataset, sections[name], source.tokenizer, stop.check)
            for name, dataset in loaded.items()
        },
        progress=progress,
        stop=stop,
        tokenizers={n: one.tokenizer for n, one in {"base": source, **others}.items()},
    )
    for name in config["pipeline"]:
        if config["stages"][name].get("baselines"):
            require_fitting(config, name, run.data_of(name), source.tokenizer)
    size = source.config
    progress.say(
        f"{config['model']['path'] or config['model']['size']}: {size.num_layers} layers, "
        f"width {size.width}, {size.vocab_size} pieces; "
        f"{'; '.join(f'{name}: {counts(dataset)}' for name, dataset in run.datasets.items())}; "
        f"{' -> '.join(config['pipeline'])} in {workdir}"
    )
    load = {name: other.load for name, other in others.items()}
    return run, Policies(config, workdir, source.load, load)


def texts_of(dataset: Dataset) -> list[str]:
    """Prompts, with their solutions where there are any; a shot stands there once."""
    shots, template = dataset.template.get("shots", ()), {**dataset.template, "shots": ()}
    return [
        prompt_text(e, template) + (target_text(e, template) if e.get("reasoning") else "")
        for e in [*shots, *dataset.train][:MOST_TEXTS]
    ]


def fitting(
    dataset: Dataset, data: Mapping[str, Any], tokenizer: Tokenizer, check: Callable[[], None]
) -> Dataset:
    """The dataset without the prompts that are too long; `check` may end it."""
    counted = itertools.count()

    def length_of(example: Example) -> int:
        if next(counted) % LOOK_EVERY == 0:
            check()
        return len(prompt_ids(tokenizer, example, dataset.template))

    return drop_long(dataset, length_of, data)


def require_left(config: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> None:
    """Refuses stages that read a training split of which every example is a shot."""
    for name in config["pipeline"]:
        for section, data, split in reads_of(config["stages"][name], config):
            if not getattr(datasets[data], split):
                raise DataError(
                    f"stages.{name}.{section}data: every {split} example of {data} is a shot"
                )


def counts(dataset: Dataset) -> str:
    """How many examples there are."""
    sizes = {split: len(getattr(dataset, split)) for split in SPLITS}
    sizes["shots"] = len(dataset.template.get("shots", ()))
    return ", ".join(f"{size} {what}" for what, size in sizes.items() if size)
