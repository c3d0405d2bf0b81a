"""Any path becomes a policy.

    a checkpoint of a run     <workdir>/checkpoints/<stage>/<step>
    anything else             models/loading.py: a Hugging Face directory or Hub repository, a
                              DeepMind checkpoint, a GGUF file, a package

A former run's policy is made again from its own config. For the base of a run, `source_of` tells
tokenizer and sizes before any weights are read; there a path may also be None: random weights, and
a tokenizer trained on the data.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from grpo.runs.policies import Policies, made_on
from grpo.storage.journal import replace
from grpo.storage.manifest import NAME as MANIFEST
from grpo.storage.snapshot import SnapshotError
from models.checkpoints.files import CheckpointError
from models.config import SIZES, GemmaConfig
from models.gemma import init_params
from models.loading import load_model
from models.policy import APPLIED, Policy
from models.tokenizer import Tokenizer, train_tokenizer


class Source(NamedTuple):
    """Where a policy comes from; `load` reads or makes its weights."""

    tokenizer: Tokenizer
    config: GemmaConfig
    load: Callable[[], Policy]


def open_policy(
    path: str | pathlib.Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> Policy:
    """The policy at a path; `dtype` is that of its weights, None for the stored one."""
    if is_checkpoint(path):
        policies, stage = former(pathlib.Path(path), mesh)
        policy = policies.at(stage, pathlib.Path(path))
        return policy if dtype is None else merged_as(policy, dtype)
    return load_model(path, revision=revision, dtype=dtype, mesh=mesh)


def source_of(
    config: Mapping[str, Any],
    workdir: pathlib.Path,
    mesh: Mesh | None,
    texts: Callable[[], Sequence[str]],
) -> Source:
    """The base of a run's config; `texts` are those that a tokenizer may be trained on."""
    model = config["model"]
    applied = {name: model[name] for name in APPLIED if name in model}  # older runs lack some

    def as_configured(policy: Policy) -> Policy:
        return dataclasses.replace(policy, **applied).placed()

    if model["path"] is None:
        tokenizer = trained_tokenizer(workdir / "tokenizer.model", model, texts)
        size = dataclasses.replace(SIZES[model["size"]], vocab_size=tokenizer.vocab_size)
        make = functools.partial(init_params, size, dtype=jnp.dtype(model["param_dtype"]))

        def random() -> Policy:
            params = made_on(mesh, make, jax.random.key(config["seed"]))
            return as_configured(Policy(config=size, params=params, tokenizer=tokenizer, mesh=mesh))

        return Source(tokenizer, size, random)
    if is_checkpoint(model["path"]):
        path = pathlib.Path(model["path"])
        policies, stage = former(path, mesh)
        source = source_of(policies.config, policies.workdir, mesh, no_texts)

        def restored() -> Policy:
            return as_configured(merged_as(policies.at(stage, path), model["param_dtype"]))

        return Source(source.tokenizer, source.config, restored)
    try:
        loaded = load_model(
            model["path"], revision=model["revision"], dtype=model["param_dtype"], mesh=mesh
        )
    except ValueError as error:
        raise CheckpointError(f"model.path={model['path']!r}: {error}") from None
    if loaded.tokenizer is None:
        raise CheckpointError(
            f"{model['path']}: has no tokenizer.model, which prompts are written with"
        )
    policy = as_configured(loaded)
    return Source(loaded.tokenizer, loaded.config, lambda: policy)


def is_checkpoint(path: str | pathlib.Path) -> bool:
    """Whether a path is a checkpoint of a run."""
    return (pathlib.Path(path) / MANIFEST).is_file()


def run_of(path: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path, str]:
    """Config and directory of the run that a checkpoint is of, and its stage."""
    workdir, stage = path.absolute().parents[2], path.absolute().parent.name
    try:
        config = json.loads((workdir / "config.json").read_text("utf-8"))
        config["stages"][stage]
    except (OSError, ValueError, KeyError):
        raise SnapshotError(
            f"{path}: is no <workdir>/checkpoints/<stage>/<step> of a run with a config.json"
        ) from None
    return config, workdir, stage


def former(path: pathlib.Path, mesh: Mesh | None) -> tuple[Policies, str]:
    """The policies of the run that a checkpoint is of, and its stage."""
    config, workdir, stage = run_of(path)
    base = source_of(config, workdir, mesh, no_texts)
    return Policies(config, workdir, base.load, {}), stage


def merged_as(policy: Policy, dtype: str) -> Policy:
    """The policy as parameters alone, in a dtype."""
    merged = policy.merged()
    params = jax.tree.map(lambda x: x.astype(dtype), merged.params)
    return dataclasses.replace(merged, params=params)


def no_texts() -> Sequence[str]:
    """A former run has its tokenizer."""
    raise SnapshotError("the run that the checkpoint is of has no tokenizer.model")


def trained_tokenizer(
    file: pathlib.Path, model: Mapping[str, Any], texts: Callable[[], Sequence[str]]
) -> Tokenizer:
    """The tokenizer of the run's directory, trained the first time."""
    if not file.is_file():
        replace(file, train_tokenizer(texts(), model["vocab"], model["whole"]))
    return Tokenizer.load(file, SIZES[model["size"]].family)
