"""What may stay out of a dataset, and what must be said about it.

Examples that are too long are dropped, never cut: a cut question is another question, and a cut
solution teaches the model not to stop. A filter can keep next to nothing and look fine, so the
share it kept is returned to be logged, and `require_kept` refuses a small one.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from grpo.data.examples import DataError, Example, question_key

Item = TypeVar("Item")


def keep_short(
    examples: Sequence[Item], length_of: Callable[[Item], int], limit: int
) -> tuple[list[Item], float]:
    """The examples that are no longer than `limit`, and their share."""
    kept = [example for example in examples if length_of(example) <= limit]
    return kept, len(kept) / max(1, len(examples))


def require_kept(ratio: float, threshold: float, name: str) -> None:
    """Refuses a dataset of which less than a share `threshold` was kept, or nothing."""
    if not ratio >= threshold or ratio == 0:
        raise DataError(f"{name}: {ratio:.1%} of the examples are kept, {threshold:.1%} are needed")


def require_disjoint(
    train: Sequence[Example], held: Sequence[Example], name: str, split: str, among: str
) -> None:
    """Refuses questions of a held-out split that are trained on, or `among` others."""
    id_of = {question_key(example): example["id"] for example in train}
    pairs = [
        f"{example['id']} is {id_of[question_key(example)]}"
        for example in held
        if question_key(example) in id_of
    ]
    if pairs:
        raise DataError(
            f"{name}: {len(pairs)} {split} questions are among {among}: {'; '.join(pairs[:5])}"
        )
