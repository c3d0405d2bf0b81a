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


def is_apart(config: Mapping, stage: Mapping, name: str) -> bool:
    """Whether a judge of a stage has devices that neither the policy nor its teacher is on.

    Only then may a second thread hand it work: two threads that hand the same devices programs may
    do so in different orders, and these then wait for each other for ever.
    """
    others = [devices_of(config, None)]
    others += [devices_of(config, stage["teacher"])] if stage["teacher"] else []
    return devices_of(config, name) not in others


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
    places = {"mesh": (config["mesh"], config["model"])}
    for name, place in config["meshes"].items():
        places[f"meshes.{name}"] = place, config["models"].get(name, config["model"])
    for path, (place, model) in places.items():
        heads = SIZES[model["size"]].num_heads
        if model["path"] is None and heads % place["tp"]:
            yield f"{path}.tp={place['tp']}: does not divide the {heads} heads of {model['size']}"
        wanted = place.get("first", 0) + place["fsdp"] * place["tp"]
        if wanted > 1 and wanted > len(jax.devices()):  # to ask starts the backend: seconds
            what = "fsdp * tp" if path == "mesh" else "first + fsdp * tp"
            yield f"{path}: {what} = {wanted} devices, here are {len(jax.devices())}"


def about_meshes(config: Mapping) -> Iterator[str]:
    """Devices for nobody, and those of two meshes that are neither the same nor apart."""
    taken: dict[str, range] = {}
    policy, known = devices_of(config, None), asked(config)
    for name in config["meshes"]:
        if name not in known:
            hint = nearest(name, known)
            yield f"meshes.{name}: is neither the teacher of a stage nor the model of a judge{hint}"
        own = devices_of(config, name)
        if own.start < policy.stop:
            yield f"meshes.{name}.first={own.start}: the policy has devices 0 to {policy.stop - 1}"
        for other, devices in taken.items():
            if own != devices and set(own) & set(devices):
                yield f"meshes.{name}: shares some devices with meshes.{other}: take all or none"
        taken[name] = own
