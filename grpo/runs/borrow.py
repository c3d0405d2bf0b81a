"""What stages of one run have left, for another directory: by links, so that nothing is copied.

The other run finds the stages done and begins after them, from the same bits. Journals and replies
of judges are not among it: what the other run writes is its own.
"""

import pathlib
from collections.abc import Iterable


def borrow(source: pathlib.Path, into: pathlib.Path, stages: Iterable[str]) -> None:
    """Links the tokenizer and all that the stages have left into a new directory."""
    source = source.absolute()
    left = [source / "tokenizer.model"]
    for stage in stages:
        left += [source / folder / stage for folder in ("checkpoints", "traces")]
        left += sorted((source / "preferences").glob(f"{stage}.*"))
        left.append(source / "rewards" / f"{stage}.json")
    for path in left:
        if path.exists():
            link = into / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
