"""GRPO: an iteration's completions are sampled and scored again, then learnt from in its updates.

Its rows are those of rollouts.jsonl, wherever an update has taken them from among the rounds.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from grpo.algorithms.groups import Groups
from grpo.algorithms.rewards_to_advantages import Round
from grpo.replays.kinds.kind import Config, Kind, Piece, TokenRows
from grpo.rollout.collect import Collected
from grpo.rollout.frozen import needs_of
from grpo.runs.iteration_programs import logprobs_of
from grpo.runs.stage_loop import StageLoop
from grpo.stages import grpo
from grpo.stages.grpo import Setting
from grpo.storage.journal import Row

CHOOSING = ("rewards.", "shuffle_rewards", "loss.decoupled")  # which groups are dropped
SHOWN = ("id", "round", "group", "prompt", "gold", "completion", "reward", "total", "finish")


class Known(NamedTuple):
    """What there is to know of a batch."""

    rounds: list[Round]  # of its iteration
    row_B: np.ndarray  # of the batch's rows, which of all rounds' rows they are
    drawn: list[Row]  # all rounds' rows


def against(before: Config, after: Config, fields: Sequence[str]) -> Iterator[str]:
    """Groups that are chosen by their rewards, and a batch that was sampled ahead."""
    if before["dynamic_sampling"] != "off":
        for field in fields:
            if field.startswith(CHOOSING):
                yield (
                    f"--set={field}: dynamic_sampling chooses groups by it: it would change the "
                    "batch"
                )
    if before["staleness"] and needs_another_reference(before, after):
        yield (
            "--set: the batch was sampled an iteration ahead, without the log-probs of the "
            "reference that this change needs"
        )


def needs_another_reference(before: Config, after: Config) -> bool:
    """Whether a stage needs log-probs of a reference that its waiting batch does not have."""
    had, needs = needs_of(before).reference, needs_of(after).reference
    return needs and (not had or before["reference"] != after["reference"])


def learn(setting: Setting, loop: StageLoop, collected: Collected) -> None:
    """One update; what was collected goes with the first of an iteration."""
    grpo.learn(setting, loop, None if loop.update else collected)


def batch_of(setting: Setting, loop: StageLoop, collected: Collected) -> tuple[Groups, Known]:
    """What the coming update learns from, and where its rows are from."""
    row_B = grpo.rows_of_batch(setting, loop, collected)
    return grpo.batch_of(setting, loop), Known(collected.rounds, row_B, collected.rows)


def tokens(groups: Groups) -> TokenRows:
    """The completions up to their ends."""
    return TokenRows(groups.ids_BT, groups.mask_BT, groups.completion_mask_BC)


def pieces(groups: Groups, known: Known) -> Iterator[Piece]:
    """A completion a row; none of the tokens of one that is left out counts."""
    for row, number in enumerate(known.row_B):
        about = {field: known.drawn[number][field] for field in SHOWN}
        about["advantage"] = float(groups.advantage_B[row])
        yield Piece(about, row, np.asarray(groups.completion_mask_BC[row], bool))


GRPO = Kind(
    stage=grpo,
    samples=True,
    may=("loss", "optimizer", "rewards", "reference", "shuffle_rewards", "microbatches"),
    against=against,
    files={},
    updates=lambda stage: needs_of(stage).updates,
    opened=grpo.opened,
    iterate=grpo.iterate,
    collect=grpo.collect,
    learn=learn,
    batch_of=batch_of,
    logprobs=logprobs_of,
    tokens=tokens,
    pieces=pieces,
    marks=("advantage",),
)
