"""Which devices a config gives to whom, and whether they are there.

The policy that is trained, and whatever names no other place, is on the first ones: config.mesh.
What others only ask, judges and teachers, may have devices of its own: config.meshes, by the name
that it is asked under, of `models` or of a stage. So one half of a slice can sample while the other
half judges.
"""

from collections.abc import Iterator, Mapping

import jax

from grpo.data.nearest import nearest
from models.config import SIZES


def devices_of(config: Mapping, name: str | None) -> range:
    """The numbers of the devices of a policy that is asked; None: of the one that is trained."""
    place = config["meshes"].get(name, config["mesh"])
    first = place.get("first", 0)
    return range(first, first + place["fsdp"] * place["tp"])


def is_apart(config: Mapping, name: str) -> bool:
    """Whether it can work at the same time as the policy that is trained."""
    return devices_of(config, name).start >= devices_of(config, None).stop


def count_devices(config: Mapping) -> int:
    """How many devices a run takes."""
    return max(devices_of(config, name).stop for name in (None, *config["meshes"]))


def asked(config: Mapping) -> list[str]:
    """The policies that others ask."""
    teachers = {stage.get("teacher") for stage in config["stages"].values()}
    judges = {judge["model"] for judge in config["judges"].values()}
    return sorted((teachers | judges) - {None})


def about_devices(config: Mapping) -> Iterator[str]:
    """What a mesh can cut, and devices that are not there."""
    places = {"mesh": config["model"]}
    for name in config["meshes"]:
        places[f"meshes.{name}"] = config["models"].get(name, config["model"])
        if name not in asked(config):
            hint = nearest(name, asked(config))
            yield f"meshes.{name}: is neither the teacher of a stage nor the model of a judge{hint}"
    for path, model in places.items():
        place = config["mesh"] if path == "mesh" else config["meshes"][path.partition(".")[2]]
        heads = SIZES[model["size"]].num_heads
        if model["path"] is None and heads % place["tp"]:
            yield f"{path}.tp={place['tp']}: does not divide the {heads} heads of {model['size']}"
        wanted = place.get("first", 0) + place["fsdp"] * place["tp"]
        if wanted > 1 and wanted > len(jax.devices()):  # to ask starts the backend: seconds
            what = "fsdp * tp" if path == "mesh" else "first + fsdp * tp"
            yield f"{path}: {what} = {wanted} devices, here are {len(jax.devices())}"
