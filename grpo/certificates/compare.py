"""How far two runs of a stage's first updates are apart: what they sampled, learnt and became.

    tokens        rows of the first iteration's groups with the same tokens; the first that differs
    logprobs      largest |Δ log π| of sampler and trainer, in rows whose tokens are the same
    loss          largest |Δ loss| at the first update, and at any
    gradient      |Δ‖g‖| / ‖g‖ at the first update; where an iteration has one update ‖Δg‖ / ‖g‖
                  as well, read from the first moments (1 - b1) g
    parameters    largest |Δθ| at the end, and ‖Δθ‖ / Σ ‖update‖
    same          everything that both have left, bit by bit: every array of the last checkpoint,
                  all metrics, all rollouts

AdamW's first steps are about learning rate · sign(g), whatever the size of g: where a gradient is
0 but for rounding, parameters part by up to two learning rates. Their distance is measured and no
verdict; the gradient's is one.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from grpo.storage.arrays import checkpointer, read_arrays
from grpo.storage.journal import read_journal

Arrays = dict[str, np.ndarray]
OF_TOKENS = ("sample_logprob_BC", "old_logprob_BC", "ref_logprob_BC")


class Found(NamedTuple):
    """How far apart."""

    rows: int  # of the first iteration; 0 where the stage samples nothing
    rows_same: int
    first: str | None  # where a token differs first
    logprobs: float
    loss_first: float
    loss: float
    gradient: float
    parameters: float
    relative: float
    same: bool


def steps_of(workdir: pathlib.Path, stage: str) -> list[pathlib.Path]:
    """The checkpoints of a stage, in order."""
    return sorted((workdir / "checkpoints" / stage).glob("[0-9]*[0-9]"))


def arrays_of(step: pathlib.Path, part: str) -> Arrays:
    """The arrays of a part of a checkpoint, by path."""
    folder = (step / "arrays" / part).absolute()
    with checkpointer() as orbax:
        metadata: Any = orbax.metadata(folder)
    there = metadata.item_metadata.tree
    like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in there.items()}
    return {name: np.asarray(x) for name, x in read_arrays(folder, like).items()}


def groups_of(workdir: pathlib.Path) -> Arrays:
    """The first iteration's rows, as sampled and scored."""
    file = workdir / "groups" / "0.npz"
    if not file.exists():
        return {}
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def metrics_of(workdir: pathlib.Path, stage: str) -> list[dict[str, Any]]:
    """The rows of the stage's updates."""
    return [row for row in read_journal(workdir / "metrics.jsonl") if row["stage"] == stage]


def largest(values: np.ndarray) -> float:
    """The largest of them, 0 of nothing."""
    return float(np.max(values, initial=0.0))


def tokens_apart(a: Arrays, b: Arrays) -> tuple[int, int, str | None, float]:
    """rows, rows_same, first, logprobs."""
    if not a:
        return 0, 0, None, 0.0
    differ_BT = (a["ids_BT"] != b["ids_BT"]) | (a["mask_BT"] != b["mask_BT"])
    rows = np.flatnonzero(differ_BT.any(axis=1))
    same_B = ~differ_BT.any(axis=1)
    first = None
    if rows.size:
        prompt = differ_BT.shape[1] - a["completion_mask_BC"].shape[1]
        first = f"row {rows[0]}, token {int(np.argmax(differ_BT[rows[0]])) - prompt}"
    mask_BC = a["completion_mask_BC"].astype(bool) & same_B[:, None]
    names = [name for name in OF_TOKENS if name in a and name in b]
    apart = [largest(np.abs(a[name] - b[name])[mask_BC]) for name in names]
    return len(same_B), int(same_B.sum()), first, max(apart, default=0.0)


def norm(arrays: Arrays) -> float:
    """‖x‖ over all arrays, in float64."""
    return float(np.sqrt(sum(np.sum(np.square(x.astype(np.float64))) for x in arrays.values())))


def minus(a: Arrays, b: Arrays) -> Arrays:
    """The difference, in float64."""
    return {name: a[name].astype(np.float64) - b[name].astype(np.float64) for name in a}


def gradient_apart(a: pathlib.Path, b: pathlib.Path, stage: str) -> float:
    """How far the first update's gradients are apart, relative to their size."""
    (one, *_), (other, *_) = metrics_of(a, stage), metrics_of(b, stage)
    by_norm = abs(one["grad_norm"] - other["grad_norm"]) / max(one["grad_norm"], 1e-30)
    first = steps_of(a, stage)[0]
    if int(first.name) != 1 or steps_of(b, stage)[0].name != first.name:
        return by_norm
    moments = [
        {name: x for name, x in arrays_of(step, "optimizer").items() if "/mu/" in name}
        for step in (first, steps_of(b, stage)[0])
    ]
    return max(by_norm, norm(minus(*moments)) / max(norm(moments[0]), 1e-30))


def compared(a: pathlib.Path, b: pathlib.Path, stage: str) -> Found:
    """Two runs beside each other; the first one is the base."""
    there, here = metrics_of(a, stage), metrics_of(b, stage)
    losses = [abs(x["loss"] - y["loss"]) for x, y in zip(there, here, strict=True)]
    last_a, last_b = steps_of(a, stage)[-1], steps_of(b, stage)[-1]
    parts = ("trainable", "optimizer")
    arrays_a, arrays_b = ({p: arrays_of(s, p) for p in parts} for s in (last_a, last_b))
    theta_a, theta_b = arrays_a["trainable"], arrays_b["trainable"]
    apart, moved = minus(theta_a, theta_b), sum(row["update_norm"] for row in there)
    rollouts = [read_journal(w / "rollouts.jsonl") if (w / "rollouts.jsonl").exists() else []
                for w in (a, b)]  # fmt: skip
    return Found(
        *tokens_apart(groups_of(a), groups_of(b)),
        loss_first=losses[0],
        loss=max(losses),
        gradient=gradient_apart(a, b, stage),
        parameters=max(largest(np.abs(x)) for x in apart.values()),
        relative=norm(apart) / max(moved, 1e-30),
        same=last_a.name == last_b.name and there == here and rollouts[0] == rollouts[1]
        and all(is_same(arrays_a[p], arrays_b[p]) for p in parts),
    )  # fmt: skip


def is_same(a: Arrays, b: Arrays) -> bool:
    """Whether all arrays have the same bits."""
    return a.keys() == b.keys() and all(
        x.dtype == b[n].dtype and x.tobytes() == b[n].tobytes() for n, x in a.items()
    )
