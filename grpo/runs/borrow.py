"""What stages of one run have left, for another directory: by links, so that little is copied.

The other run finds the stages done and begins after them, from the same bits. Of journals it has
copies, as runs cut theirs back: of preferences whole ones, of the metrics the rows of these stages,
by which a stage of pairs knows what it has done. Replies of judges are not among it.
"""

import pathlib
import shutil
from collections.abc import Iterable

from grpo.storage.journal import Journal


def borrow(source: pathlib.Path, into: pathlib.Path, stages: Iterable[str]) -> None:
    """Links the tokenizer and all that the stages have left into a new directory."""
    source, stages = source.absolute(), tuple(stages)
    left = [source / "tokenizer.model"]
    for stage in stages:
        left += [source / folder / stage for folder in ("checkpoints", "traces")]
        left += sorted((source / "preferences").glob(f"{stage}.*"))
        left.append(source / "rewards" / f"{stage}.json")
    for path in left:
        if path.exists():
            here = into / path.relative_to(source)
            here.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "preferences":
                shutil.copyfile(path, here)
            else:
                here.symlink_to(path)
    if (source / "metrics.jsonl").is_file():
        own = Journal(into / "metrics.jsonl")
        for row in Journal(source / "metrics.jsonl").rows():
            if row.get("stage") in stages:
                own.write(row)
