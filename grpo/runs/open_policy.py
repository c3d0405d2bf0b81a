"""Where the base of a run comes from: its tokenizer, its sizes, its weights.

model.path is   None                            random weights, a tokenizer trained on the data
                a checkpoint of another run     <workdir>/checkpoints/<stage>/<step>
                anything else                   models/model.py: a directory, or a Hub repository

A former run's policy is made again from its own config, and an adapter merged into its weights.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from grpo.data.datasets import Dataset
from grpo.reporting.progress import Progress
from grpo.storage.manifest import NAME as MANIFEST
from grpo.runs.policies import Policies, merged, on_mesh
from grpo.runs.run import Run, Stop
from grpo.storage.snapshot import restore_part
from models.checkpoints.files import CheckpointError
from models.config import SIZES, GemmaConfig
from models.gemma import init_params
from models.model import load_model
from models.tokenizer import Tokenizer, train_tokenizer

Tree = Any


class Origin(NamedTuple):
    """The base; `params` reads or makes its weights."""

    tokenizer: Tokenizer
    size: GemmaConfig
    params: Callable[[], Tree]


def origin_of(
    config: Mapping[str, Any],
    workdir: pathlib.Path,
    mesh: Mesh | None,
    texts: Callable[[], Sequence[str]],
) -> Origin:
    """The base of a config; `texts` are those that a tokenizer may be trained on."""
    model = config["model"]
    dtype = jnp.dtype(model["param_dtype"])
    if model["path"] is None:
        tokenizer = trained_tokenizer(workdir / "tokenizer.model", model, texts)
        size = dataclasses.replace(SIZES[model["size"]], vocab_size=tokenizer.vocab_size)
        make = functools.partial(init_params, size, dtype=dtype)
        return Origin(tokenizer, size, lambda: on_mesh(mesh, make, jax.random.key(config["seed"])))
    path = pathlib.Path(model["path"])
    if (path / MANIFEST).is_file():
        return former(path, dtype, mesh)
    try:
        loaded = load_model(path, revision=model["revision"], dtype=model["param_dtype"], mesh=mesh)
    except ValueError as error:
        raise CheckpointError(f"model.path={model['path']!r}: {error}") from None
    if loaded.tokenizer is None:
        raise CheckpointError(f"{path}: has no tokenizer.model, which prompts are written with")
    return Origin(loaded.tokenizer, loaded.config, lambda: loaded.params)


def former(path: pathlib.Path, dtype: Any, mesh: Mesh | None) -> Origin:
    """The policy that a stage of another run had at a checkpoint."""
    workdir, stage = path.absolute().parents[2], path.absolute().parent.name
    try:
        config = json.loads((workdir / "config.json").read_text("utf-8"))
        config["stages"][stage]
    except (OSError, ValueError, KeyError):
        raise CheckpointError(
            f"{path}: is no <workdir>/checkpoints/<stage>/<step> of a run with a config.json"
        ) from None
    base = origin_of(config, workdir, mesh, no_texts)
    run = Run(
        config=config,
        workdir=workdir,
        tokenizer=base.tokenizer,
        size=base.size,
        mesh=mesh,
        data=Dataset([], [], {}),  # nothing is trained here
        progress=Progress(sys.stderr, every_s=0.0),
        stop=Stop(),
    )
    policies = Policies(run, base.params)

    def params() -> Tree:
        start = policies.start(stage)
        policy = start.with_trained(restore_part(path, "trainable", start.trainable))
        return jax.tree.map(lambda x: x.astype(dtype), merged(policy).params)

    return Origin(base.tokenizer, base.size, params)


def no_texts() -> Sequence[str]:
    """A former run has its tokenizer."""
    raise CheckpointError("the run that the checkpoint is of has no tokenizer.model")


def trained_tokenizer(
    file: pathlib.Path, model: Mapping[str, Any], texts: Callable[[], Sequence[str]]
) -> Tokenizer:
    """The tokenizer of the run's directory, trained the first time."""
    if not file.is_file():
        proto = train_tokenizer(texts(), model["vocab"])
        draft = file.with_suffix(".tmp")
        draft.write_bytes(proto)
        draft.replace(file)
    return Tokenizer.load(file, SIZES[model["size"]].family)
