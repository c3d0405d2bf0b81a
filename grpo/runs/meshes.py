"""The meshes of a config: grpo/checks/devices.py says which devices are whose."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from models.sharding import make_mesh

Config = Mapping[str, Any]


def own_mesh(config: Config) -> Mesh | None:
    """That of the policy which is trained; one device needs none."""
    size = config["mesh"]
    return make_mesh(**size) if size["fsdp"] * size["tp"] > 1 else None


def mesh_of(config: Config, name: str) -> Mesh | None:
    """That of a policy which is asked."""
    if name not in config["meshes"]:
        return own_mesh(config)
    place = config["meshes"][name]
    return make_mesh(place["fsdp"], place["tp"], jax.devices()[place["first"] :])
