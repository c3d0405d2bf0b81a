"""The policies of a run: where each stage begins, and what it leaves.

    base            the model as loaded, or random weights of the run's seed
    start of stage  the end of the stage it goes on from; with the same adapter, or with the old
                    one merged and a fresh one, or with all parameters to be trained
    end of stage    the start, with what its final checkpoint holds

Nothing of this is state: after an interruption each policy is made again, bit by bit. The start of
a stage is therefore a reference that needs no copy on disk.
"""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from grpo.training.scoring import Policy
from grpo.runs.run import Run
from grpo.storage.snapshot import restore_part
from models.checkpoints.files import CheckpointError
from models.lora import LoraConfig, init_adapter, merge
from models.sharding import shardings

Tree = Any
Variables = dict[str, Tree]


class Policies:
    """The policies of a run; `load` reads the weights of the base."""

    def __init__(self, run: Run, load: Callable[[], Tree]):
        self._run = run
        self._load = load

    @functools.cached_property
    def base(self) -> Policy:
        """The model as loaded."""
        return Policy(self._load())

    def start(self, stage: str) -> Policy:
        """What a stage begins with."""
        config = self._run.config["stages"][stage]
        before = self.end(self.predecessor(stage))
        return prepare(self._run, stage, before, config["lora"])

    def reference(self, stage: str, start: Policy) -> Variables:
        """What a stage's policy is held to: where the stage begins, or the base."""
        if self._run.config["stages"][stage]["reference"] == "base":
            return self.base.variables
        # A fresh adapter changes nothing yet; the parameters alone are cheaper to run.
        is_fresh = self._lora(stage) != self._lora(self.predecessor(stage))
        return {"params": start.params} if is_fresh else start.variables

    def _lora(self, stage: str) -> LoraConfig | None:
        """The adapter that a stage trains."""
        return None if stage == "base" else lora_of(self._run.config["stages"][stage]["lora"])

    def end(self, stage: str) -> Policy:
        """What a stage has left, or the base."""
        if stage == "base":
            return self.base
        start = self.start(stage)
        return start.with_trained(restore_part(self.final(stage), "trainable", start.trainable))

    def predecessor(self, stage: str) -> str:
        """The stage whose end a stage begins with."""
        config = self._run.config
        if named := config["stages"][stage]["start"]:
            return named
        before = config["pipeline"][: config["pipeline"].index(stage)]
        trained = [name for name in before if config["stages"][name]["kind"] != "evaluate"]
        return trained[-1] if trained else "base"

    def final(self, stage: str) -> pathlib.Path:
        """The final checkpoint of a stage."""
        checkpoints = self._run.checkpoints(stage)
        if not (steps := checkpoints.steps()):
            raise CheckpointError(f"{checkpoints.root}: stage {stage} has left no checkpoint")
        return checkpoints.path(steps[-1])


def lora_of(config: Mapping[str, Any]) -> LoraConfig | None:
    """The adapter that a config describes, None for all parameters."""
    return LoraConfig(**config) if config["rank"] is not None else None


def merged(policy: Policy) -> Policy:
    """The policy as parameters alone; the ones it was made of stay as they are."""
    if policy.adapter is None:
        return policy
    places = jax.tree.map(lambda x: x.sharding, policy.params)
    merge_here = jax.jit(merge, static_argnums=2, out_shardings=places)
    return Policy(merge_here(policy.params, policy.adapter, policy.scale))


def prepare(run: Run, stage: str, policy: Policy, lora: Mapping[str, Any]) -> Policy:
    """A policy with what a stage trains: all parameters, the adapter it has, or a fresh one."""
    wanted = lora_of(lora)
    if wanted == policy.lora:
        return policy
    params = merged(policy).params
    if wanted is None:
        return Policy(params)
    # By the stage's name, so that another stage before it does not change the adapter.
    number = int.from_bytes(hashlib.sha256(stage.encode()).digest()[:4], "big")
    key = jax.random.fold_in(jax.random.key(run.seed), number)
    make = functools.partial(init_adapter, wanted, jax.eval_shape(lambda: params))
    return Policy(params, wanted, on_mesh(run.mesh, make, key))


def on_mesh(mesh: Mesh | None, make: Callable[[jax.Array], Tree], key: jax.Array) -> Tree:
    """What `make` makes, every device its own shards only."""
    places = None if mesh is None else shardings(jax.eval_shape(make, key), mesh)
    return jax.jit(make, out_shardings=places)(key)
