"""What an update did to each token that it learnt from: its log-prob before and after.

The log-probs are those that the stage computes, at the sampler's temperature, of the rows of the
update's batch. What a row is stands beside them, as rollouts.jsonl has it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from grpo.replays.again import Update
from grpo.runs.iteration_programs import logprobs_of as stage_logprobs
from grpo.storage.journal import Row
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from models.policy import variables_of
from models.tokenizer import Tokenizer

Tree = Any
KEPT = ("id", "round", "group", "prompt", "gold", "completion", "reward", "total", "finish")


def logprobs_of(update: Update) -> Logprobs:
    """How the stage computes log-probs."""
    return dataclasses.replace(
        stage_logprobs(update.setting.stage, update.loop.policy), with_entropy=False
    )


def scored(update: Update, trainable: Tree) -> np.ndarray:
    """logprob_BC of the update's batch under some values of what is trained."""
    batch = update.batch
    found_BC = logprobs_of_rows(
        variables_of(trainable, update.loop.start.frozen),
        batch.ids_BT,
        batch.mask_BT,
        logprobs=logprobs_of(update),
        completion=batch.completion_mask_BC.shape[1],
        parts=update.setting.stage["microbatches"],
    )
    return np.asarray(found_BC)


def rows_with(update: Update, columns: Mapping[str, np.ndarray]) -> list[Row]:
    """A row for each completion of the batch: what it is, its tokens, and a value of each token.

    A completion whose group is left out by dynamic sampling has no tokens here: none counts.
    """
    place = {"stage": update.setting.name, "iteration": update.metrics["iteration"]}
    journal = update.setting.run.journal("rollouts").rows()
    drawn = [row for row in journal if place.items() <= row.items()]
    C = update.batch.completion_mask_BC.shape[1]
    ids_BC, mask_BC = np.asarray(update.batch.ids_BT)[:, -C:], update.batch.completion_mask_BC
    text_of, found = token_text(update.loop.policy.own_tokenizer), []
    for row, number in enumerate(update.row_B):
        ids = ids_BC[row][np.asarray(mask_BC[row], bool)]
        values = {name: [float(x) for x in x_BC[row][: len(ids)]] for name, x_BC in columns.items()}
        found.append({
            **{field: drawn[number][field] for field in KEPT},
            "advantage": float(update.batch.advantage_B[row]),
            "ids": ids.tolist(),
            "tokens": [text_of(token) for token in ids.tolist()],
            **values,
        })  # fmt: skip
    return found


def token_text(tokenizer: Tokenizer) -> Any:
    """The text of a token alone: a part of a character is a sign for it, <eos> is its number."""

    @functools.cache
    def text_of(token: int) -> str:
        return tokenizer.decode([token]) or f"<{token}>"

    return text_of


def moved_most(rows: list[Row], columns: list[str], most: int) -> list[Row]:
    """The tokens whose log-prob has changed most by any of some columns of changes."""
    tokens = [
        {
            "row": place,
            "place": number,
            "token": token,
            "advantage": row["advantage"],
            **{name: row[name][number] for name in ("before", *columns)},
        }
        for place, row in enumerate(rows)
        for number, token in enumerate(row["tokens"])
    ]
    tokens.sort(key=lambda token: -max(abs(token[name]) for name in columns))
    return tokens[:most]
