"""What an update did to each token that it learnt from: its log-prob before and after.

The log-probs are those that the stage computes, at the sampler's temperature where it samples, of
the tokens that the update's batch is about. What a completion is stands beside them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from grpo.replays.again import Update
from grpo.storage.journal import Row
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from models.policy import variables_of
from models.tokenizer import Tokenizer

Tree = Any


def logprobs_of(update: Update) -> Logprobs:
    """How the stage computes log-probs."""
    how = update.kind.logprobs(update.setting.stage, update.loop.policy)
    return dataclasses.replace(how, with_entropy=False)


def scored(update: Update, trainable: Tree) -> np.ndarray:
    """logprob_BC of the update's batch under some values of what is trained."""
    tokens = update.tokens
    found_BC = logprobs_of_rows(
        variables_of(trainable, update.loop.start.frozen),
        tokens.ids_BT,
        tokens.mask_BT,
        logprobs=logprobs_of(update),
        completion=tokens.completion_mask_BC.shape[1],
        parts=update.setting.stage["microbatches"],
    )
    return np.asarray(found_BC)


def rows_with(update: Update, columns: Mapping[str, np.ndarray]) -> list[Row]:
    """A row for each completion of the batch: what it is, its tokens, and a value of each token.

    A completion whose group is left out by dynamic sampling has no tokens here: none counts.
    """
    C = update.tokens.completion_mask_BC.shape[1]
    ids_BC = np.asarray(update.tokens.ids_BT)[:, -C:]
    text_of, found = token_text(update.loop.policy.own_tokenizer), []
    for about, row, is_mine_C in update.kind.pieces(update.batch, update.known):
        ids = ids_BC[row][is_mine_C].tolist()
        found.append({
            **about,
            "ids": ids,
            "tokens": [text_of(token) for token in ids],
            **{name: [float(x) for x in x_BC[row][is_mine_C]] for name, x_BC in columns.items()},
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
            **{name: row[name][number] for name in ("before", *columns)},
        }
        for place, row in enumerate(rows)
        for number, token in enumerate(row["tokens"])
    ]
    tokens.sort(key=lambda token: -max(abs(token[name]) for name in columns))
    return tokens[:most]
