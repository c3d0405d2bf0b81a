"""The worked solutions that a stage learns from: of a dataset, or those a stage has had written."""

from grpo.data.datasets import section_of
from grpo.data.examples import Example
from grpo.data.filters import keep_short, require_kept
from grpo.data.templates import target_ids
from grpo.runs.run import Run
from grpo.runs.traces import kept_in
from models.tokenizer import Tokenizer


def solutions(
    run: Run, name: str, tokenizer: Tokenizer, *, source: str | None, limit: int, most: int | None
) -> list[Example]:
    """The first training examples, `most` of them, without a solution beyond `limit` tokens.

    `source` is the stage whose traces they are; None: its dataset's own.
    """
    data = run.data_of(name)
    train = data.train if source is None else kept_in(run.traces(source))
    found = train[:most]
    examples = [example for example in found if example["reasoning"]]
    kept, ratio = keep_short(
        examples, lambda e: len(target_ids(tokenizer, e, data.template)), limit
    )
    least = section_of(run.config, run.config["stages"][name]["data"])["min_kept"]
    require_kept(len(kept) / max(len(found), 1), least, f"solutions of at most {limit} tokens")
    run.progress.say(f"{len(kept)} solutions, {ratio:.1%} fit {limit} tokens")
    return kept
