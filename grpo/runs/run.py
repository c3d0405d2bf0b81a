"""What every stage of a run is given: its data, tokenizer, model, and where to write.

<workdir>/config.json         the config as resolved; environment.jsonl: what launches ran on
          tokenizer.model     the one in use
          metrics.jsonl       a row per update and per evaluation; equal runs, equal bytes
          rollouts.jsonl      a row per completion that was sampled for training
          timing.jsonl        seconds, which differ between equal runs
          checkpoints/<stage>/<step>/
          evaluations/<stage>.json and .jsonl
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from grpo.data.datasets import Dataset
from grpo.data.templates import TEMPLATES, Template
from grpo.storage.checkpoints import Checkpoints
from grpo.reporting.progress import Progress
from grpo.storage.journal import Journal
from grpo.training.scoring import Policy
from models.config import GemmaConfig
from models.gemma import Gemma
from models.tokenizer import Tokenizer


class StoppedError(Exception):
    """The run was asked to stop, and everything is saved."""


class Stop:
    """A wish to stop, set by a signal and looked at between updates."""

    def __init__(self):
        self.reason: str | None = None

    def check(self) -> None:
        """Ends what can be done again at no loss."""
        if self.reason:
            raise StoppedError(self.reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, in one directory."""

    config: Mapping[str, Any]
    workdir: pathlib.Path
    tokenizer: Tokenizer
    size: GemmaConfig
    mesh: Mesh | None
    data: Dataset
    progress: Progress
    stop: Stop

    @property
    def seed(self) -> int:
        """The seed of everything."""
        return self.config["seed"]

    @property
    def template(self) -> Template:
        """How examples become prompts and targets."""
        return TEMPLATES[self.config["data"]["template"]]

    def journal(self, name: str) -> Journal:
        """metrics, rollouts or timing."""
        return Journal(self.workdir / f"{name}.jsonl")

    def checkpoints(self, stage: str) -> Checkpoints:
        """The checkpoints of a stage."""
        return Checkpoints(self.workdir / "checkpoints" / stage, **self.config["checkpoint"])

    def module(self, policy: Policy) -> Gemma:
        """The module that computes a policy."""
        return gemma_of(self.config["model"], self.size, policy.scale, self.mesh)


def gemma_of(
    model: Mapping[str, Any], size: GemmaConfig, lora_scale: float, mesh: Mesh | None
) -> Gemma:
    """The module of a config's `model`, in a size."""
    return Gemma(
        size,
        model["dtype"],
        model["param_dtype"],
        lora_scale,
        attention=model["attention"],
        remat=model["remat"],
        mesh=mesh,
    )
