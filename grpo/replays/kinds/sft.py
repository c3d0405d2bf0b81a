"""Supervised training: an example is a target that is read behind its prompt."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from grpo.data.packing import Rows
from grpo.data.templates import prompt_text, target_text
from grpo.replays.kinds.kind import Piece, TokenRows, from_data
from grpo.runs.stage_loop import StageLoop
from grpo.stages import sft
from grpo.storage.journal import Row

Known = Mapping[tuple[int, ...], Row]  # examples by their tokens


def batch_of(setting: sft.Setting, loop: StageLoop, _: None) -> tuple[Rows, Known]:
    """The rows of the coming update, and its examples."""
    rows, count = sft.batch_of(setting, loop)
    template, known = setting.run.data_of(setting.name).template, {}
    for example, (prompt, target) in itertools.islice(sft.following(setting, loop), count):
        known[*prompt, *target] = {
            "id": example["id"],
            "prompt": prompt_text(example, template),
            "completion": target_text(example, template),
        }
    return rows, known


def tokens(rows: Rows) -> TokenRows:
    """Targets weigh something, prompts nothing."""
    return TokenRows(rows.ids_BT, rows.mask_BT, rows.weight_BC > 0)


def pieces(rows: Rows, known: Known) -> Iterator[Piece]:
    """Examples, which the mask numbers within a row."""
    C = rows.weight_BC.shape[1]
    for row, mask_T in enumerate(rows.mask_BT):
        for number in range(1, mask_T.max() + 1):
            is_mine_T = mask_T == number
            about: Any = known[tuple(rows.ids_BT[row][is_mine_T].tolist())]
            yield Piece(about, row, is_mine_T[-C:] & np.asarray(rows.weight_BC[row] > 0))


SFT = from_data(
    sft,
    may=("optimizer", "microbatches"),
    files={},
    batch_of=batch_of,
    tokens=tokens,
    pieces=pieces,
    marks=(),
)
