"""The policies of a run: where each stage begins, and what it leaves.

    base            the model as loaded, or random weights of the run's seed
    start of stage  the end of the stage it goes on from; with the same adapter, or with the old
                    one merged and a fresh one, or with all parameters to be trained
    end of stage    the start, with what its final checkpoint holds

Nothing of this is state: after an interruption each policy is made again, bit by bit. The start of
a stage is therefore a reference that needs no copy on disk.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from grpo.runs.meshes import mesh_of
from grpo.runs.run import checkpoints_of
from grpo.storage.snapshot import SnapshotError, restore_part
from models.lora import LoraConfig, init_adapter
from models.policy import Policy
from models.sharding import shardings

Tree = Any


class Policies:
    """The policies of the run with this config and directory; `load` reads or makes the base."""

    def __init__(
        self,
        config: Mapping[str, Any],
        workdir: pathlib.Path,
        load: Callable[[], Policy],
        others: Mapping[str, Callable[[], Policy]],  # the further models
    ):
        self.config, self.workdir, self._load = config, workdir, load
        self._others, self._loaded = others, {}

    @functools.cached_property
    def base(self) -> Policy:
        """The model as loaded."""
        return self._load()

    def start(self, stage: str) -> Policy:
        """What a stage begins with."""
        before = self.end(self.predecessor(stage))
        return prepared(before, self._lora(stage), stage, self.config["seed"])

    def reference(self, stage: str, start: Policy) -> Policy:
        """What a stage's policy is held to: where the stage begins, or the base."""
        if self.config["stages"][stage]["reference"] == "base":
            return self.base
        # A fresh adapter changes nothing yet; the parameters alone are cheaper to run.
        is_fresh = self._lora(stage) != self._lora(self.predecessor(stage))
        return start.base() if is_fresh else start

    def end(self, stage: str) -> Policy:
        """What a stage has left, or the base, or one of the further models."""
        if stage in self._others:
            if stage not in self._loaded:
                self._loaded[stage] = self._others[stage]()
            return self._loaded[stage]
        return self.base if stage == "base" else self.at(stage, self.final(stage))

    def asked(self, name: str) -> Policy:
        """What a stage has left, or one of the models, as others ask it: on its own devices."""
        policy, mesh = self.end(name).merged(), mesh_of(self.config, name)
        return policy if policy.mesh == mesh else policy.on(mesh)

    def at(self, stage: str, checkpoint: pathlib.Path) -> Policy:
        """What a stage had at one of its checkpoints."""
        start = self.start(stage)
        return start.with_trained(restore_part(checkpoint, "trainable", start.trainable))

    def predecessor(self, stage: str) -> str:
        """The stage whose end a stage begins with."""
        stages, pipeline = self.config["stages"], self.config["pipeline"]
        if named := stages[stage]["start"]:
            return named
        before = [name for name in pipeline[: pipeline.index(stage)] if trains(stages[name])]
        return before[-1] if before else "base"

    def final(self, stage: str) -> pathlib.Path:
        """The final checkpoint of a stage."""
        checkpoints = checkpoints_of(self.config, self.workdir, stage)
        if not (steps := checkpoints.steps()):
            raise SnapshotError(f"{checkpoints.root}: stage {stage} has left no checkpoint")
        return checkpoints.path(steps[-1])

    def _lora(self, stage: str) -> LoraConfig | None:
        """The adapter that a stage trains."""
        return None if stage == "base" else lora_of(self.config["stages"][stage]["lora"])


def trains(stage: Mapping[str, Any]) -> bool:
    """Whether a stage trains: whether it starts from a policy, to leave another one."""
    return "start" in stage


def lora_of(config: Mapping[str, Any]) -> LoraConfig | None:
    """The adapter that a config describes, None for all parameters."""
    return LoraConfig(**config) if config["rank"] is not None else None


def prepared(policy: Policy, lora: LoraConfig | None, stage: str, seed: int) -> Policy:
    """A policy with what a stage trains: all parameters, the adapter it has, or a fresh one."""
    if lora == policy.lora:
        return policy
    merged = policy.merged()
    if lora is None:
        return merged
    # By the stage's name, so that another stage before it does not change the adapter.
    number = int.from_bytes(hashlib.sha256(stage.encode()).digest()[:4], "big")
    key = jax.random.fold_in(jax.random.key(seed), number)
    make = functools.partial(init_adapter, lora, jax.eval_shape(lambda: merged.params))
    adapter = made_on(policy.mesh, make, key)
    return dataclasses.replace(merged, lora=lora, adapter=adapter)


def made_on(mesh: Mesh | None, make: Callable[[jax.Array], Tree], key: jax.Array) -> Tree:
    """What `make` makes, every device its own shards only."""
    where = None if mesh is None else shardings(jax.eval_shape(make, key), mesh)
    return jax.jit(make, out_shardings=where)(key)
