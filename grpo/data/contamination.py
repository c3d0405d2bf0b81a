r"""Training questions that say what a held-out question says: n words in a row are the same.

A word is \w+, whatever its case; 13 of them in a row is the usual measure (GPT-3, arXiv:2005.14165,
appendix C). A question with fewer words counts as a whole, so that the same one with another full
stop is found too. Questions alone are compared, and not solutions.

    report   says how many there are, in data.json
    drop     trains without them, if enough is left
    abort    refuses to begin
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from grpo.data.examples import DataError, Example
from grpo.data.filters import require_kept

CHOICES = ("off", "report", "drop", "abort")
WORD = re.compile(r"\w+")
SHOWN = 5  # pairs that an error names


def grams(question: str, n: int) -> set[tuple[str, ...]]:
    """The runs of n words in a question; of a shorter one, all of it."""
    words = WORD.findall(question.casefold())
    runs = zip(*(words[start:] for start in range(n)), strict=False)
    return set(runs) if len(words) >= n else {tuple(words)} - {()}


def contaminated(
    train: Sequence[Example], held: Iterable[Example], n: int
) -> list[tuple[Example, Example]]:
    """The training examples that share a run of n words with a held-out one, and that one."""
    source: dict[tuple[str, ...], Example] = {}
    for example in held:
        for gram in grams(example["question"], n):
            source.setdefault(gram, example)
    found = []
    for example in train:
        shared = [source[gram] for gram in grams(example["question"], n) if gram in source]
        if shared:
            found.append((example, min(shared, key=lambda other: other["id"])))
    return found


def checked(
    train: list[Example], held: Iterable[Example], *, then: str, n: int, min_kept: float, name: str
) -> tuple[list[Example], dict[str, Any]]:
    """The training examples that may be learnt from, and a report."""
    if then == "off":
        return train, {}
    pairs = contaminated(train, held, n)
    if pairs and then == "abort":
        shown = "; ".join(f"{one['id']} is like {other['id']}" for one, other in pairs[:SHOWN])
        raise DataError(
            f"{name}: {len(pairs)} training questions share {n} words in a row with held-out ones: "
            f"{shown}: set contamination to 'drop'"
        )
    ids = {one["id"] for one, _ in pairs}
    clean = [example for example in train if example["id"] not in ids]
    ratio = len(clean) / max(1, len(train))
    if then == "drop":
        require_kept(ratio, min_kept, f"{name} (train, without {n} words of held-out questions)")
    report = {"train/contaminated": len(pairs), "train/clean": ratio}
    return (clean if then == "drop" else train), report
