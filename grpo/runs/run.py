"""What every stage of a run is given: its config, datasets, and where to write.

<workdir>/config.json         the config as resolved; environment.jsonl: what launches ran on
          inputs.json         what it began with, by content (inputs.py)
          tokenizer.model     the one in use
          metrics.jsonl       a row per update and per evaluation; equal runs, equal bytes
          rollouts.jsonl      a row per completion that was sampled for training
          timing.jsonl        seconds, which differ between equal runs
          report.html         all of it to look at, also while the run goes
          checkpoints/<stage>/<step>/
          evaluations/<stage>.json and .jsonl
          judges/<judge>.jsonl    replies, which a replay answers with
          preferences/<stage>.jsonl
          traces/<stage>/traces.jsonl and others
          rewards/<stage>.json
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from grpo.data.datasets import DEFAULT, Dataset
from grpo.evaluation.evaluate import Setting
from grpo.reporting.progress import Progress
from grpo.runs.time_budget import TimeBudget
from grpo.storage.checkpoints import Checkpoints
from grpo.storage.journal import Journal
from models.tokenizer import Tokenizer


class RunError(ValueError):
    """A run that cannot begin, in one line."""


class StoppedError(Exception):
    """The run was asked to stop, and everything is saved."""


class Stop:
    """A wish to stop: of a signal, or of a budget of time; looked at wherever a run waits."""

    def __init__(self, budget: TimeBudget | None = None):
        self.budget = budget
        self.hold: Callable[[], None] = lambda: None  # raises if the directory is another's
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why it is to stop, if it is."""
        if self._reason is None and self.budget is not None and self.budget.is_used_up():
            self._reason = f"the time budget of {self.budget.text} is used up"
        return self._reason

    @reason.setter
    def reason(self, reason: str) -> None:
        self._reason = reason

    def check(self) -> None:
        """Ends what can be done again at no loss."""
        self.hold()
        if self.reason:
            raise StoppedError(self.reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, in one directory."""

    config: Mapping[str, Any]
    workdir: pathlib.Path
    datasets: Mapping[str, Dataset]
    progress: Progress
    stop: Stop
    tokenizers: Mapping[str, Tokenizer] = dataclasses.field(default_factory=dict)  # by model
    _journals: dict[str, Journal] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def seed(self) -> int:
        """The seed of everything."""
        return self.config["seed"]

    def data_of(self, stage: str) -> Dataset:
        """The dataset that a stage reads."""
        return self.datasets[self.config["stages"][stage]["data"] or DEFAULT]

    def setting(self, dataset: Dataset) -> Setting:
        """What the evaluations on a dataset have in common."""
        buckets = self.config["data"]["buckets"]
        return Setting(self.seed, dataset.template, buckets, self.stop.check)

    def journal(self, name: str) -> Journal:
        """metrics, rollouts, timing or environment; one of each, which knows what it has lost."""
        if name not in self._journals:
            path = self.workdir / f"{name}.jsonl"
            self._journals[name] = Journal(path, hold=self.stop.hold)
        return self._journals[name]

    def lost(self) -> dict[str, int]:
        """How many rows of journals are missing, of those that miss some."""
        return {name: one.lost for name, one in self._journals.items() if one.lost}

    def preferences(self, stage: str) -> pathlib.Path:
        """The pairs that a stage made, or with `.reference` what a reference said of its pairs."""
        return self.workdir / "preferences" / f"{stage}.jsonl"

    def traces(self, stage: str) -> pathlib.Path:
        """The folder of the solutions that a stage has had written."""
        return self.workdir / "traces" / stage

    def rewards(self, stage: str) -> pathlib.Path:
        """What a reward model knows of prompts that it has not learnt."""
        return self.workdir / "rewards" / f"{stage}.json"

    def checkpoints(self, stage: str) -> Checkpoints:
        """The checkpoints of a stage."""
        return checkpoints_of(self.config, self.workdir, stage)


def checkpoints_of(config: Mapping[str, Any], workdir: pathlib.Path, stage: str) -> Checkpoints:
    """The checkpoints of a stage of a run."""
    return Checkpoints(workdir / "checkpoints" / stage, **config["checkpoint"])
