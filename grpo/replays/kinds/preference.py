"""Training on preferences: both completions of a pair, one row after the other.

A stage that begins anew has its reference read all pairs again; one that goes on from a checkpoint
has what was read.
"""

from collections.abc import Iterator, Sequence

from grpo.algorithms.preference import Pairs
from grpo.data.datasets import DEFAULT
from grpo.data.templates import prompt_text
from grpo.replays.kinds.kind import Piece, TokenRows, from_data
from grpo.runs.preferences import dataset_of
from grpo.runs.stage_loop import StageLoop
from grpo.stages import preference
from grpo.storage.journal import Row

SIDES = ("chosen", "rejected")


def batch_of(setting: preference.Setting, loop: StageLoop, _: None) -> tuple[Pairs, list[Row]]:
    """The pairs of the coming update, and what their completions are."""
    config, known = setting.run.config, []
    template = setting.run.datasets[dataset_of(setting.stage, config) or DEFAULT].template
    for place in preference.following(setting, loop):
        row = setting.pairs[place][0]
        about = {"id": row["id"], "prompt": prompt_text(row, template)}
        known += [{**about, "side": side, "completion": row[side]} for side in SIDES]
    return preference.batch_of(setting, loop), known


def tokens(pairs: Pairs) -> TokenRows:
    """Two rows for each pair."""
    arrays = pairs.ids_P2T, pairs.mask_P2T, pairs.completion_mask_P2C
    return TokenRows(*(x.reshape(-1, x.shape[2]) for x in arrays))


def pieces(pairs: Pairs, known: Sequence[Row]) -> Iterator[Piece]:
    """Both completions of every pair."""
    mask_BC = tokens(pairs).completion_mask_BC > 0
    for row, about in enumerate(known):
        yield Piece(about, row, mask_BC[row])


PREFERENCE = from_data(
    preference,
    may=("loss", "optimizer", "reference", "microbatches"),
    files={"preferences/{stage}.reference.jsonl": ("reference", "microbatches")},
    batch_of=batch_of,
    tokens=tokens,
    pieces=pieces,
    marks=("side",),
)
