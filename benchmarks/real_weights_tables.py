"""The tables of real_weights.py, made of what its sides left in a folder.

Logits are compared with our float32 ones of the whole text at once, and with the oracle's of
float64; greedy tokens with our sampler's. Where two greedy texts part, the table has what our
logits put between the two tokens: a gap as small as the logits' own differences is a tie, which
rounding decides.
"""

import functools
import json
import pathlib

import numpy as np

from models import Policy, load_model, logits

LOGIT_BOUND, ROWS = 1e-3, 50
LOGITS = {  # name of the array, what it is
    "ours": "ours, at once",
    "ours.cached": "ours, through the cache",
    "transformers": "transformers, at once",
    "transformers.cached": "transformers, through its cache",
    "tunix": "Tunix, at once",
    "llama.float32": "llama.cpp, its own float32 of the file",
    "llama": "llama.cpp, the quantised file",
    "ours.bfloat16": "ours in bfloat16",
    "transformers.bfloat16": "transformers in bfloat16",
}
GREEDY = {  # name of the tokens, which of ours they are compared with, what they are
    "transformers.base": ("base", "transformers, the model"),
    "transformers.adapter": ("adapter", "transformers, the adapter by peft"),
    "transformers.merged": ("adapter", "transformers, the merged directory"),
    "llama.float32": ("base", "llama.cpp, its own float32 of the file"),
    "llama": ("base", "llama.cpp, the quantised file"),
}
BOUNDED = ("ours", "ours.cached", "transformers", "transformers.cached", "tunix")
EQUAL = "transformers."


class Folder:
    """What the sides left."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.task = self.json("task")

    def has(self, file: str) -> bool:
        """Whether a side left this."""
        return (self.path / file).is_file()

    def json(self, name: str):
        """A value."""
        return json.loads((self.path / f"{name}.json").read_text())

    def logits(self, name: str) -> np.ndarray:
        """logits_TV, left on disk."""
        return np.load(self.path / f"{name}.npy", mmap_mode="r")

    @functools.cached_property
    def models(self) -> dict[str, Policy]:
        """The directories that save_hf wrote, for a look at where texts part."""
        return {name: load_model(self.path / name) for name in ("base", "merged")}

    def gap(self, name: str, ids: list[int], mine: int, theirs: int) -> float:
        """What a model's logits after `ids` put between two tokens."""
        row_V = np.asarray(logits(self.models[name], [ids])[0, -1])
        return float(row_V[mine] - row_V[theirs])


def logprobs(logits_TV: np.ndarray, target_T: np.ndarray) -> np.ndarray:
    """logprob_T of the targets, in float64."""
    z_TV = logits_TV.astype(np.float64)
    top_T1 = z_TV.max(axis=1, keepdims=True)
    total_T = np.log(np.exp(z_TV - top_T1).sum(axis=1)) + top_T1[:, 0]
    return np.take_along_axis(z_TV, target_T[:, None], axis=1)[:, 0] - total_T


def compare(mine_TV: np.ndarray, theirs_TV: np.ndarray, ids: list[int]) -> dict[str, float]:
    """What sets two sides' logits of a text apart, a few positions at a time."""
    total, largest, same, gaps, scores = 0.0, 0.0, 0, [], []
    for start in range(0, len(ids), ROWS):
        mine, theirs = (np.asarray(x[start : start + ROWS]) for x in (mine_TV, theirs_TV))
        gap = np.abs(mine - theirs)
        total, largest = total + gap.sum(dtype=np.float64), max(largest, float(gap.max()))
        same += int((mine.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        # The last position has none.
        target = np.array(ids[start + 1 : start + 1 + ROWS], np.int64)
        mine, theirs = (logprobs(x[: len(target)], target) for x in (mine, theirs))
        gaps.append(np.abs(mine - theirs))
        scores.append(theirs)
    gap, score = np.concatenate(gaps), np.concatenate(scores)
    return {
        "max": largest,
        "mean": total / mine_TV.size,
        "same": same,
        "logprob_max": float(gap.max()),
        "logprob_mean": float(gap.mean()),
        "perplexity": float(np.exp(-score.mean())),
    }


def logits_table(folder: Folder) -> tuple[list[str], bool]:
    """Everybody's logits of the running text beside ours, and whether the bound holds."""
    (mine_TV, exact_TV), held = map(folder.logits, ("ours", "oracle")), True
    ids = folder.task["ids"]
    lines = [
        "| logits of the text | from float64: max, mean | from ours: max, mean | likeliest tokens "
        "as ours | log-probs from ours: max, mean | perplexity |",
        "|---|---|---|---|---|---|",
    ]
    for name, what in LOGITS.items():
        if not folder.has(f"{name}.npy"):
            continue
        told = compare(mine_TV, folder.logits(name), ids)
        exact = compare(exact_TV, folder.logits(name), ids)
        held &= name not in BOUNDED or max(told["max"], exact["max"]) <= LOGIT_BOUND
        lines.append(
            f"| {what} | {exact['max']:.1e}, {exact['mean']:.1e} | {told['max']:.1e}, "
            f"{told['mean']:.1e} | {told['same']} of {len(ids)} | {told['logprob_max']:.1e}, "
            f"{told['logprob_mean']:.1e} | {told['perplexity']:.4f} |"
        )
    return lines, held


def parting(mine: list[int], theirs: list[int]) -> int | None:
    """The first place at which two completions differ; each ends with what stopped it."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((c for c, (one, other) in pairs if one != other), None)


def greedy_table(folder: Folder) -> tuple[list[str], bool]:
    """Everybody's greedy tokens beside ours, and whether those of transformers are equal."""
    prompts, held = folder.task["prompts"], True
    lines = [
        "| greedy, beside ours | equal | equal tokens before the others part: least, median "
        "| gap of our logits there: least, largest |",
        "|---|---|---|---|",
    ]
    for name, (own, what) in GREEDY.items():
        if not folder.has(f"{name}.json"):
            continue
        mine, theirs = folder.json(f"ours.{own}"), folder.json(name)
        model = "base" if own == "base" else "merged"
        places, gaps = [], []
        for prompt, one, other in zip(prompts, mine, theirs, strict=True):
            if (c := parting(one, other)) is not None:
                places.append(c)
                gaps.append(folder.gap(model, prompt + one[:c], one[c], other[c]))
        held &= not (places and name.startswith(EQUAL))
        told = f"{min(places)}, {np.median(places):.0f}" if places else "–"
        shown = f"{min(gaps):.1e}, {max(gaps):.1e}" if gaps else "–"
        lines.append(f"| {what} | {len(mine) - len(places)} of {len(mine)} | {told} | {shown} |")
    return lines, held


def sampling_table(folder: Folder) -> list[str]:
    """The sampler's log-probs beside the trainer's, and what the correction makes of them."""
    lines = [
        "| sampler beside trainer | max, mean of log-prob differences | weights w, their mean "
        "| range | effective share | outside a cap of 1.05, of 2 |",
        "|---|---|---|---|---|---|",
    ]
    for dtype, told in folder.json("sampling").items():
        for level in ("token", "sequence"):
            w = told[level]
            outside = ", ".join(f"{100 * share:.1f} %" for share in w["outside"].values())
            lines.append(
                f"| {dtype} | {told['max']:.1e}, {told['mean']:.1e} | {level}, {w['mean']:.5f} "
                f"| {w['range'][0]:.4f} to {w['range'][1]:.4f} | {w['effective']:.5f} | {outside} |"
            )
    return lines


def tokenizers_agree(folder: Folder) -> bool:
    """Whether transformers makes the same ids of the prompts, and the same texts of its tokens."""
    decode, stops = folder.models["base"].own_tokenizer.decode, folder.task["stop_ids"]
    texts = [
        decode(token for token in row if token not in stops)
        for row in folder.json("transformers.base")
    ]
    same_ids = folder.json("transformers.ids") == folder.task["prompts"]
    return same_ids and texts == folder.json("transformers.texts")
