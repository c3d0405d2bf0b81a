"""The worked solutions that a stage learns from."""

from grpo.data.datasets import section_of
from grpo.data.examples import Example
from grpo.data.filters import keep_short, require_kept
from grpo.data.templates import target_ids
from grpo.runs.run import Run
from models.tokenizer import Tokenizer


def solutions(
    run: Run, name: str, tokenizer: Tokenizer, *, limit: int, most: int | None
) -> list[Example]:
    """The first training examples, `most` of them, without a solution beyond `limit` tokens."""
    data = run.data_of(name)
    found = data.train[:most]
    examples = [example for example in found if example["reasoning"]]
    kept, ratio = keep_short(
        examples, lambda e: len(target_ids(tokenizer, e, data.template)), limit
    )
    least = section_of(run.config, run.config["stages"][name]["data"])["min_kept"]
    require_kept(len(kept) / max(len(found), 1), least, f"solutions of at most {limit} tokens")
    run.progress.say(f"{len(kept)} solutions, {ratio:.1%} fit {limit} tokens")
    return kept
