"""Two sides' arrays -> rows of a table: piece, largest difference, tolerance, verdict.

    difference   max |ours - theirs| / max(1, max |theirs|)      of values
                 max over parameters of ‖ours - theirs‖ / ‖theirs‖   of gradients and updates
                 how many entries differ                          of tokens, masks and lengths

Padding is left out. A piece is computed of the same input on both sides; `whole` ones (logits,
log-probs, losses) of the ids alone. What differs on purpose has no tolerance but a reason, and a
piece that does not differ although it should is said to agree.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from grpo.parity.ours import PIECES
from grpo.parity.task import BATCH_NEW
from grpo.parity.words import ADVANTAGE, LOSSES
from models.config import GLOBAL, LOCAL, GemmaConfig

Arrays = Mapping[str, Any]
PIECE, WHOLE, MOVED = 1e-5, 1e-4, 1e-3  # float32, sums in another order; Adam divides by |g|
WITHIN, DIFFERS, ON_PURPOSE, AGREES = "within", "DIFFERS", "on purpose", "agrees"
# Tunix's metric -> ours, where they mean the same.
SAME = {"pg_loss": "loss/policy", "kl_loss": "loss/kl", "is_ratio/mean": "ratio/mean",
        "is_ratio/max": "ratio/max"}  # fmt: skip


class Row(NamedTuple):
    """A line of the table; without a tolerance it differs on purpose, for that reason."""

    piece: str
    gap: float
    tolerance: float | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """What comes of it; a difference that is not finite is one."""
        if self.tolerance is None:
            return AGREES if self.gap <= WHOLE else ON_PURPOSE
        return WITHIN if self.gap <= self.tolerance else DIFFERS


def gap_of(ours: Any, theirs: Any, mask: Any = True) -> float:
    """The largest difference of values, relative where they are above 1; NaN if one is none."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    keep = np.broadcast_to(np.asarray(mask, bool), a.shape)
    a, b = a[keep], b[keep]
    return float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b))))) if a.size else 0.0


def count_of(ours: Any, theirs: Any) -> float:
    """How many entries differ."""
    return float(np.sum(np.asarray(ours) != np.asarray(theirs)))


def tree_gap(tree: Any, theirs: Arrays, prefix: str) -> float:
    """The worst parameter's difference, relative to its own norm."""
    gaps = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        other = np.asarray(theirs[prefix + jax.tree_util.keystr(path)], np.float64)
        norm = max(float(np.linalg.norm(other)), 1e-30)
        gaps.append(float(np.linalg.norm(np.asarray(leaf, np.float64) - other)) / norm)
    return float(np.max(gaps))


def layer_rows(config: GemmaConfig, walk: Arrays, theirs: Arrays, mask_BT: Any) -> list[Row]:
    """The pieces of the model one by one, the worst layer of each; then the whole."""
    keep = np.asarray(mask_BT, bool)[..., None]

    def worst(name: str, layers: list[int]) -> float:
        return float(np.max([gap_of(walk[name][i], theirs[name][i], keep) for i in layers]))

    everywhere = list(range(config.num_layers))
    rows = [Row("embedding", gap_of(walk["x"][0], theirs["embedding"], keep), PIECE)]
    if "visible" in theirs:
        seen = np.asarray(mask_BT, bool)[:, :, None]
        gap = count_of(walk["visible"] & seen, np.asarray(theirs["visible"], bool) & seen)
        rows.append(Row("visible keys, global layers (entries)", gap, 0))
    for kind in (LOCAL, GLOBAL):
        base = config.local_theta if kind == LOCAL else config.global_theta
        gap = gap_of(walk[f"rope_{kind}"], theirs[f"rope_{kind}"], keep[..., None])
        rows.append(Row(f"rotary, {kind} layers, base {base:g}", gap, PIECE))
    capped = f", soft cap {config.attention_softcap:g}" if config.attention_softcap else ""
    for name in PIECES:
        if name != "attention":
            what = name if name == "mlp" else f"RMS norm {name.removesuffix('_norm')}"
            rows.append(Row(what, worst(name, everywhere), PIECE))
            continue
        for kind in (LOCAL, GLOBAL):
            layers = [i for i, k in enumerate(config.kinds) if k == kind]
            where = f"{kind}, window {config.window}" if kind == LOCAL else kind
            if layers:
                rows.append(Row(f"attention, {where}{capped}", worst(name, layers), PIECE))
    rows.append(Row("block", worst("block", everywhere), PIECE))
    capped = f", soft cap {config.logit_softcap:g}" if config.logit_softcap else ""
    gap = gap_of(walk["logits"], theirs["logits"], keep)
    rows.append(Row(f"logits of the whole model{capped}", gap, WHOLE))
    if "left_padded" in theirs:
        gap = gap_of(walk["logits"][1:], theirs["left_padded"], keep[1:])
        reason = "it measures a window from positions to columns, so padding in front moves it"
        rows.append(Row("logits of a row padded on the left", gap, None, reason))
    return rows


def sampler_rows(ours: Arrays, theirs: Arrays) -> list[Row]:
    """Greedy tokens and their log-probs."""
    tokens = np.asarray(theirs["greedy"])
    return [
        Row(f"greedy tokens through the cache ({tokens.size})",
            count_of(ours["greedy"], tokens), 0),
        Row("log-probs of the greedy tokens",
            gap_of(ours["greedy_logprob"], theirs["greedy_logprob"]), WHOLE),
    ]  # fmt: skip


def tunix_sampler_rows(
    ours: Arrays, theirs: Arrays, score: Callable[[np.ndarray], np.ndarray]
) -> list[Row]:
    """Each side's draws as the other's trainer scores them; and where the sides part."""
    mine = np.asarray(ours["stopped_lengths"])
    # Tunix takes a token 0 for padding, and an end token for one too.
    readable = np.all(ours["drawn"] > 1, axis=1)
    return [
        *sampler_rows(ours, theirs),
        Row("what it drew, by our trainer's log-probs",
            gap_of(score(theirs["drawn"]), theirs["drawn_logprob"]), WHOLE),
        Row("what we drew, by its trainer's log-probs",
            gap_of(ours["drawn_logprob"], theirs["of_ours"], readable[:, None]), WHOLE),
        Row("tokens up to the stop token", count_of(mine, theirs["stopped_lengths"]), None,
            "it cuts the stop token off, so stopping is never trained; ours is in the mask"),
        Row("old log-probs at temperature 0.9",
            gap_of(ours["drawn_logprob"], theirs["of_ours_cold"], readable[:, None]), None,
            "its old log-probs ignore the temperature: first ratios of a second epoch are not 1"),
    ]  # fmt: skip


def loss_rows(ours: Arrays, theirs: Arrays, mask_BC: Any) -> list[Row]:
    """Log-probs of given tokens, advantages, losses with their metrics; its own default."""
    rows = [Row(f"log-probs of {int(np.sum(mask_BC))} given tokens, temperature 0.9",
                gap_of(ours["logprobs"], theirs["logprobs"], mask_BC), WHOLE)]  # fmt: skip
    for name in ADVANTAGE:
        gap = gap_of(ours[f"advantages:{name}"], theirs[f"advantages:{name}"])
        rows.append(Row(f"advantages, {name}", gap, PIECE))
    for name, case in LOSSES.items():
        gaps = [gap_of(ours[name], theirs[f"loss:{name}"])]
        for key, mine in SAME.items():
            if mine != "loss/kl" or case["beta"]:
                gaps.append(gap_of(ours[f"{name}:{mine}"], theirs[f"loss:{name}:{key}"]))
        rows.append(Row(f"loss and metrics, {name}", float(np.max(gaps)), WHOLE))
    first = next(iter(LOSSES))
    gap = gap_of(ours[first], theirs["loss:default"])
    reason = "its default KL is k1 in the loss, whose expected gradient is 0; ours is k3"
    return [*rows, Row("loss as its defaults have it", gap, None, reason)]


def step_rows(loss: float, grads: Any, moved: Any, theirs: Arrays) -> list[Row]:
    """One whole GRPO step."""
    return [
        Row("GRPO step: loss", gap_of(loss, theirs["step:loss"]), WHOLE),
        Row("GRPO step: gradient, worst parameter",
            tree_gap(grads, theirs, "step:gradient"), WHOLE),
        Row("GRPO step: update by AdamW, worst parameter",
            tree_gap(moved, theirs, "step:moved"), MOVED),
    ]  # fmt: skip


def completion_mask(task: Arrays) -> np.ndarray:
    """Which columns of the batch are tokens of completions."""
    return np.asarray(task["batch_mask"][:, -BATCH_NEW:], bool)
