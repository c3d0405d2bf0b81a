"""The meshes of a config: grpo/checks/devices.py says which devices are whose.

They are of the devices that are there; within `of_devices`, of others, which need not be.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from models.sharding import make_mesh

Config = Mapping[str, Any]
_OTHERS: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("others", default=None)


@contextlib.contextmanager
def of_devices(devices: Sequence[Any]) -> Iterator[None]:
    """Makes meshes of these."""
    token = _OTHERS.set([*devices])
    try:
        yield
    finally:
        _OTHERS.reset(token)


def devices_here() -> list[Any]:
    """The devices that meshes are made of."""
    return jax.devices() if (others := _OTHERS.get()) is None else others


def own_mesh(config: Config) -> Mesh | None:
    """That of the policy which is trained; one device needs none."""
    size = config["mesh"]
    return make_mesh(**size, devices=devices_here()) if size["fsdp"] * size["tp"] > 1 else None


def mesh_of(config: Config, name: str) -> Mesh | None:
    """That of a policy which is asked."""
    if name not in config["meshes"]:
        return own_mesh(config)
    place = config["meshes"][name]
    return make_mesh(place["fsdp"], place["tp"], devices_here()[place["first"] :])
