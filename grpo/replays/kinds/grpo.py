"""GRPO: an iteration's completions are sampled and scored again, then learnt from in its updates.

Its rows are those of rollouts.jsonl, wherever an update has taken them from among the rounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.algorithms.groups import Groups
from grpo.replays.kinds.kind import Config, Kind, Piece, TokenRows
from grpo.rollout.collect import choose
from grpo.rollout.compare import Compiled
from grpo.rollout.frozen import needs_of
from grpo.rollout.sampler import Rollout
from grpo.runs.iteration_programs import logprobs_of
from grpo.runs.stage_loop import StageLoop
from grpo.stages import grpo
from grpo.stages.grpo import Setting
from grpo.storage.journal import Row

SAMPLED = len(Rollout._fields)  # of the fields of Groups, those without a default
CHOOSING = ("rewards.", "shuffle_rewards", "loss.decoupled")  # which groups are dropped
SHOWN = ("id", "round", "group", "prompt", "gold", "completion", "reward", "total", "finish")


class Round(NamedTuple):
    """What a round's advantages were made of."""

    reward_PG: Any
    parts: Mapping[str, Any]  # by reward function, behind its gate
    length_PG: Any
    penalty_PG: Any  # None: no KL is taken from the reward
    spread_P1: Any


class Collected(NamedTuple):
    """What an iteration has sampled and scored; its groups are the loop's."""

    metrics: Mapping[str, float]
    rounds: list[Round]


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


def collect(setting: Setting, loop: StageLoop) -> Collected:
    """Samples and scores the iteration, and keeps what its advantages are made of."""
    rounds: list[Round] = []
    recording = setting._replace(advantages=recorded(setting.advantages, rounds))
    return Collected(grpo.collect(recording, loop), rounds)


def recorded(advantages: Compiled, rounds: list[Round]) -> Compiled:
    """The same, which keeps what it is given."""

    def kept(reward_PG: Any, parts: Any, length_PG: Any, penalty_PG: Any) -> Any:
        advantage_PG, spread_P1 = advantages(reward_PG, parts, length_PG, penalty_PG)
        rounds.append(Round(reward_PG, parts, length_PG, penalty_PG, spread_P1))
        return advantage_PG, spread_P1

    return kept


def learn(setting: Setting, loop: StageLoop, collected: Collected) -> None:
    """One update; the metrics of the rollout stand with the first of an iteration."""
    grpo.learn(setting, loop, {} if loop.update else collected.metrics)


def batch_of(setting: Setting, loop: StageLoop, collected: Collected) -> tuple[Groups, Known]:
    """What the coming update learns from, and where its rows are from."""
    where = {"stage": setting.name, "iteration": loop.iteration}
    rows = setting.run.journal("rollouts").rows()
    drawn = [row for row in rows if where.items() <= row.items()]
    row_B = rows_in_batch(setting, loop, collected.rounds)
    return grpo.batch_of(setting, loop), Known(collected.rounds, row_B, drawn)


def rows_in_batch(setting: Setting, loop: StageLoop, rounds: Sequence[Round]) -> np.ndarray:
    """row_B: which rows of all rounds, counted on, the coming update learns from."""
    size = setting.stage["prompts"] * setting.stage["group"]
    numbers = [number * size + np.arange(size)[:, None] for number in range(len(rounds))]
    if setting.stage["dynamic_sampling"] == "off":
        chosen_B1 = numbers[0]
    else:
        numbered = [
            Groups(*(row_B1,) * SAMPLED, spread_B=np.repeat(one.spread_P1, setting.stage["group"]))
            for row_B1, one in zip(numbers, rounds, strict=True)
        ]
        chosen_B1 = choose(numbered, setting.stage["group"]).ids_BT
    groups = loop.groups
    loop.groups = {**groups, "ids_BT": chosen_B1}
    found = grpo.batch_of(setting, loop).ids_BT[:, 0]
    loop.groups = groups
    return found


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
    collect=collect,
    learn=learn,
    batch_of=batch_of,
    logprobs=logprobs_of,
    tokens=tokens,
    pieces=pieces,
    marks=("advantage",),
)
