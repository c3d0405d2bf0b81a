"""An update made again: by the stage's own code, from a checkpoint before it.

The stage is opened in a scratch directory (scratch.py), goes on to the update's iteration, collects
what that learns from (of GRPO: samples and scores its completions) and makes its updates, with the
functions that the run had: those of the stage's file, which grpo/replays/kinds names. Before the
update its state is copied; so there are state and batch before it, and the state after it.

`changed` makes it once more with another config of the stage: the iteration is collected again, the
same completions with other advantages or other log-probs beside them, and the update begins at the
state at which the run's own began.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grpo.replays.kinds.kind import Kind, TokenRows
from grpo.replays.place import Place
from grpo.replays.scratch import Scratch
from grpo.runs.stage_loop import StageLoop
from grpo.storage.journal import Row
from grpo.training.train_step import TrainState

Config = Mapping[str, Any]


class Update(NamedTuple):
    """An update that was made again."""

    kind: Kind
    setting: Any  # the stage's
    loop: StageLoop  # after it
    before: TrainState
    batch: Any  # as the stage's loss reads it
    known: Any  # what its kind knows of the batch
    after: TrainState
    metrics: Row  # as metrics.jsonl has it

    @property
    def tokens(self) -> TokenRows:
        """The batch as rows of tokens, and which of these it is about."""
        return self.kind.tokens(self.batch)


def made_again(scratch: Scratch, *, keep_iteration: bool) -> Update:
    """The update; `keep_iteration` saves, in the scratch directory, where its iteration began."""
    place = scratch.place
    with place.kind.opened(scratch.run, place.stage, scratch.policies) as (setting, loop):
        while loop.iteration < place.iteration:
            place.kind.iterate(setting, loop)
        if keep_iteration:
            loop.save()
        return update_of(setting, loop, place, None)


def changed(scratch: Scratch, original: Update, config: Config) -> Update:
    """The update under another config of its stage."""
    place = scratch.place
    run = dataclasses.replace(scratch.run, config=config)
    policies = copy.copy(scratch.policies)  # the weights that were read stay
    policies.config = config
    forget(scratch, config)
    with place.kind.opened(run, place.stage, policies) as (setting, loop):
        return update_of(setting, loop, place, original.before)


def forget(scratch: Scratch, config: Config) -> None:
    """Deletes what the stage has written in the scratch directory and would write otherwise now."""
    place = scratch.place
    before, after = (one["stages"][place.stage] for one in (scratch.run.config, config))
    for file, fields in zip(place.files, place.kind.files.values(), strict=True):
        if any(before[field] != after[field] for field in fields):
            (scratch.run.workdir / file).unlink(missing_ok=True)


def update_of(setting: Any, loop: StageLoop, place: Place, begin: TrainState | None) -> Update:
    """The place's update in a loop whose iteration begins, from its own state or another one."""
    kind = place.kind
    collected = kind.collect(setting, loop)
    if begin is None:
        while loop.update < place.update:
            kind.learn(setting, loop, collected)
    elif place.update:
        loop.state, loop.step = copied(begin), place.step - 1
        loop.move_to(loop.iteration, place.update)
    before = copied(loop.state)
    batch, known = kind.batch_of(setting, loop, collected)
    kind.learn(setting, loop, collected)
    loop.write_metrics()
    metrics = setting.run.journal("metrics").rows()[-1]
    return Update(kind, setting, loop, before, batch, known, loop.state, metrics)


def copied(state: TrainState) -> TrainState:
    """A state that an update does not take."""
    return jax.tree.map(jnp.copy, state)
