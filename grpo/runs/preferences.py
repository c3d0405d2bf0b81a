"""Where the pairs of a stage come from: a dataset, or a stage before it that made them."""

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.data.datasets import DEFAULT, section_of, sections_of
from grpo.data.examples import Example
from grpo.data.filters import keep_short, require_kept
from grpo.data.pairing import Tokens, tokens_of
from grpo.data.preferences import OPTIONAL, REQUIRED, load_preferences
from grpo.runs.run import Run
from models.tokenizer import Tokenizer

Config = Mapping[str, Any]
COLUMNS = {field: field for field in (REQUIRED | OPTIONAL) - {"margin"}}  # of pairs made here


def dataset_of(stage: Config, config: Config) -> str | None:
    """The dataset whose prompts the pairs have: their own, or that of the stage that made them."""
    name = stage["preferences"]
    return name if name in sections_of(config) else config["stages"][name]["data"]


def preferences_of(run: Run, name: str) -> Sequence[Example]:
    """The pairs of a stage, in texts."""
    source = run.config["stages"][name]["preferences"]
    if source in run.datasets:
        return run.datasets[source].train
    return load_preferences(run.preferences(source), COLUMNS, max_bad=0.0)[0]


def fitting_pairs(run: Run, name: str, tokenizer: Tokenizer) -> list[tuple[Example, Tokens]]:
    """The pairs of a stage whose completions fit, with their tokens."""
    stage = run.config["stages"][name]
    data, limit = dataset_of(stage, run.config), stage["max_completion"]
    template = run.datasets[data or DEFAULT].template
    rows = preferences_of(run, name)
    pairs = [(row, tokens_of(tokenizer, row, template)) for row in rows]
    kept, ratio = keep_short(pairs, lambda pair: pair[1].longest, limit)
    least = section_of(run.config, data)["min_kept"]
    require_kept(ratio, least, f"completions of {stage['preferences']} of at most {limit}")
    run.progress.say(f"{len(kept)} pairs, {ratio:.1%} fit {limit} tokens")
    return kept
