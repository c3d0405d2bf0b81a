"""What going back to an update asks of a kind of stage.

A kind brings the functions of its stage (grpo/stages), which the run itself called, and says how to
look at a batch of it: which tokens it is about, and what each completion of it is.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.stage_loop import StageLoop
from grpo.storage.journal import Row
from grpo.training.logprobs import Logprobs
from models.policy import Policy

Array = Any
Config = Mapping[str, Any]
Opened = tuple[Any, StageLoop]  # what stays the same through the stage, and where it is


class TokenRows(NamedTuple):
    """A batch as the policy reads it, and the tokens whose log-probs the update is about."""

    ids_BT: Array
    mask_BT: Array
    completion_mask_BC: Array  # of the last C tokens of each row


class Piece(NamedTuple):
    """A completion of a batch; a packed row has several."""

    about: Row  # what it is, for a reader
    row: int
    is_mine_C: np.ndarray  # of the row's last C tokens


class Kind(NamedTuple):
    """A kind of stage; `setting` is what its stage calls so."""

    stage: Any  # its module: FIELDS, check
    samples: bool  # whether it samples completions and has them rewarded, with rows in rollouts
    # The first parts of the fields that an update has, and its batch has not.
    may: tuple[str, ...]
    # (stage before, after, changed fields) -> a line on each that would change it nevertheless.
    against: Callable[[Config, Config, list[str]], Iterator[str]]
    # What the stage writes below the run's directory beside its journals, and reads when it goes
    # on: {stage} is its name; and the fields of the stage that this depends on.
    files: Mapping[str, tuple[str, ...]]
    updates: Callable[[Config], int]  # of an iteration of a stage
    opened: Callable[[Run, str, Policies], contextlib.AbstractContextManager[Opened]]
    iterate: Callable[[Any, StageLoop], None]  # one iteration
    # (setting, loop) -> what `learn` and `batch_of` are given through an iteration that begins.
    collect: Callable[[Any, StageLoop], Any]
    learn: Callable[[Any, StageLoop, Any], None]  # one update
    # (setting, loop, collected) -> the coming update's batch, and what there is to know of it.
    batch_of: Callable[[Any, StageLoop, Any], tuple[Any, Any]]
    logprobs: Callable[[Config, Policy], Logprobs]  # how the stage computes them
    tokens: Callable[[Any], TokenRows]  # of a batch
    pieces: Callable[[Any, Any], Iterator[Piece]]  # of a batch and what there is to know of it
    marks: tuple[str, ...]  # what of a piece stands beside each of its tokens


def plain_logprobs(stage: Config, policy: Policy) -> Logprobs:
    """Of texts that were not sampled there is no temperature."""
    return Logprobs(module=policy.module, temperature=1.0, with_entropy=False)


def from_data(stage: Any, **own: Any) -> Kind:
    """The kind of a stage that learns from its data as it is, with an update per iteration."""

    def opened(run: Run, name: str, policies: Policies) -> Any:
        return contextlib.nullcontext(stage.opened(run, name, policies))

    return Kind(
        stage=stage,
        samples=False,
        against=lambda before, after, fields: iter(()),
        updates=lambda of_stage: 1,
        opened=opened,
        iterate=stage.learn,
        collect=lambda setting, loop: None,
        learn=lambda setting, loop, collected: stage.learn(setting, loop),
        logprobs=plain_logprobs,
        **own,
    )
