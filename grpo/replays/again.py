"""An update made again: by the stage's own code, from a checkpoint before it.

The stage is opened in a scratch directory (place.py), goes on to the update's iteration, samples
and scores its completions and makes its updates, with the functions of grpo/stages/grpo.py that the
run had. Before the update its state is copied; so there are state and batch before it, and the
state after it.

`changed` makes it once more with another config of the stage: the iteration is sampled and scored
again, the same completions with other advantages or other log-probs beside them, and the update
begins at the state at which the run's own began.
"""

import copy
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.groups import Groups
from grpo.algorithms.rewards_to_advantages import Round
from grpo.replays.place import (
    Nearest,
    Place,
    ReplayError,
    config_to_replay,
    lacking,
    prepare,
)
from grpo.reporting.progress import Progress
from grpo.rollout.collect import Collected
from grpo.runs.policies import Policies
from grpo.runs.run import Run, Stop
from grpo.runs.setup import set_up
from grpo.runs.stage_loop import StageLoop
from grpo.stages import grpo
from grpo.stages.grpo import Setting
from grpo.storage.journal import Row
from grpo.training.train_step import TrainState

Config = Mapping[str, Any]


class Update(NamedTuple):
    """An update that was made again."""

    setting: Setting
    loop: StageLoop  # after it
    before: TrainState
    batch: Groups
    rounds: list[Round]  # of its iteration
    row_B: np.ndarray  # of the batch's rows, which of all rounds' rows they are
    after: TrainState
    metrics: Row  # as metrics.jsonl has it


class Scratch(NamedTuple):
    """A run beside the run."""

    run: Run
    policies: Policies
    place: Place


def opened_beside(
    place: Place, found: Nearest, scratch: pathlib.Path, progress: Progress
) -> Scratch:
    """The run in a scratch directory, with the data that it had."""
    for line in lacking(place):
        raise ReplayError(line)
    prepare(place, found, scratch)
    run, policies = set_up(config_to_replay(place), scratch, progress, Stop())
    return Scratch(run, policies, place)


def made_again(scratch: Scratch, *, keep_iteration: bool) -> Update:
    """The update; `keep_iteration` saves, in the scratch directory, where its iteration began."""
    place = scratch.place
    with grpo.opened(scratch.run, place.stage, scratch.policies) as (setting, loop):
        while loop.iteration < place.iteration:
            grpo.iterate(setting, loop)
        if keep_iteration:
            loop.save()
        return update_of(setting, loop, place, None)


def changed(scratch: Scratch, original: Update, config: Config) -> Update:
    """The update under another config of its stage."""
    place = scratch.place
    run = dataclasses.replace(scratch.run, config=config)
    policies = copy.copy(scratch.policies)  # the weights that were read stay
    policies.config = config
    with grpo.opened(run, place.stage, policies) as (setting, loop):
        return update_of(setting, loop, place, original.before)


def update_of(setting: Setting, loop: StageLoop, place: Place, begin: TrainState | None) -> Update:
    """The place's update in a loop whose iteration begins, from its own state or another one."""
    collected = grpo.collect(setting, loop)
    of_first: Collected | None = collected
    if begin is None:
        while loop.update < place.update:
            grpo.learn(setting, loop, of_first)
            of_first = None
    elif place.update:
        loop.state, loop.step, of_first = copied(begin), place.step - 1, None
        loop.move_to(loop.iteration, place.update)
    before, batch = copied(loop.state), grpo.batch_of(setting, loop)
    row_B = grpo.rows_of_batch(setting, loop, collected)
    grpo.learn(setting, loop, of_first)
    loop.write_metrics()
    metrics = setting.run.journal("metrics").rows()[-1]
    return Update(setting, loop, before, batch, collected.rounds, row_B, loop.state, metrics)


def copied(state: TrainState) -> TrainState:
    """A state that an update does not take."""
    return jax.tree.map(jnp.copy, state)
