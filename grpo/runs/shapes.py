"""Policies that are not there: the shapes of a config's models, with their shardings."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from grpo.runs.meshes import mesh_of, own_mesh
from grpo.runs.policies import lora_of
from grpo.training.program import shapes_on
from models.checkpoints import hf, package
from models.config import SIZES
from models.gemma import param_shapes
from models.loading import find
from models.lora import init_adapter
from models.policy import APPLIED, Policy
from models.sharding import FROZEN


def base_of(config: Mapping[str, Any]) -> Policy:
    """The base of a config."""
    return shaped(config["model"], own_mesh(config))


def shaped(model: Mapping[str, Any], mesh: Mesh | None) -> Policy:
    """A model of a config: of the sizes that its path has, if that is here, or of its size."""
    size = SIZES[model["size"]]
    if model["path"] is None:
        size = dataclasses.replace(size, vocab_size=model["vocab"])  # or a few pieces less
    elif (directory := pathlib.Path(model["path"]) / "config.json").is_file():
        size = hf.read_config(directory.parent)
    elif package.is_named(model["path"]) or pathlib.Path(model["path"]).is_file():
        size = find(model["path"], model["revision"]).config
    return Policy(
        config=size,
        params=shapes_on(
            mesh,
            param_shapes(size, jnp.dtype(model["param_dtype"])),
            FROZEN[model["frozen_weights"]],
        ),
        mesh=mesh,
        **{name: model[name] for name in APPLIED},
    )


def model_shapes(config: Mapping[str, Any], name: str, policy: Policy) -> Policy:
    """A model that a stage asks: one of `models`, or a policy of the run, without an adapter."""
    mesh = mesh_of(config, name)
    if name in config["models"]:
        return shaped(config["models"][name], mesh)
    base = policy.base()
    if mesh == base.mesh:
        return base
    return dataclasses.replace(base, params=shapes_on(mesh, base.params, base.axes), mesh=mesh)


def shapes_at_start(base: Policy, stage: Mapping[str, Any]) -> Policy:
    """What a stage begins with, if it trains, else the base: of a base that is not there."""
    if "lora" not in stage:
        return base
    if (lora := lora_of(stage["lora"])) is None:  # all parameters are trained
        return dataclasses.replace(base, params=shapes_on(base.mesh, base.params))
    adapter = jax.eval_shape(lambda: init_adapter(lora, base.params, jax.random.key(0)))
    return dataclasses.replace(base, lora=lora, adapter=shapes_on(base.mesh, adapter))
