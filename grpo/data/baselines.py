"""What a trained policy is compared with: the base, asked as its chat template has it.

A dataset's own template may be that of a system to be reproduced, which asks the base in a way that
it does not expect; what training repairs is then no new ability. A baseline has the same
instruction and questions, the model's turn begun as Gemma's chat template begins it, and before the
question 0 or more worked examples, as earlier turns. These are the first ones to train on that have
a worked solution, after the dataset's own shots; the base has not trained on them. A split for
training is not asked: it may hold the examples themselves.
"""

from collections.abc import Mapping
from typing import Any

from grpo.data.datasets import Dataset, buckets_for
from grpo.data.examples import DataError
from grpo.data.templates import Template, prompt_ids
from models.tokenizer import Tokenizer

MODEL_LINE = "model\n"  # of the published templates: models/chat.py


def label_of(shots: int) -> str:
    """The name of a baseline among policies, which no stage can have."""
    return f"base, {shots} shots"


def baseline_template(dataset: Dataset, shots: int) -> Template:
    """The dataset's template as a baseline with so many shots has it."""
    known = [*dataset.template.get("shots", ()), *dataset.train]
    worked = [example for example in known if example["reasoning"]]
    if len(worked) < shots:
        raise DataError(
            f"baselines: {shots} shots are to be shown, {len(worked)} training examples have a "
            "worked solution"
        )
    return {**dataset.template, "model_line": MODEL_LINE, "shots": worked[:shots]}


def baseline_buckets(config: Mapping[str, Any], stage: Mapping[str, Any], shots: int) -> tuple:
    """The lengths that its prompts are padded to: shots make all of them long."""
    return (stage["baseline_prompt"],) if shots else buckets_for(config, stage["data"])


def require_fitting(
    config: Mapping[str, Any], name: str, dataset: Dataset, tokenizer: Tokenizer
) -> None:
    """Refuses baselines of an evaluation stage whose prompts do not fit."""
    stage = config["stages"][name]
    examples = getattr(dataset, stage["split"])[: stage["examples"]]
    for shots in stage["baselines"]:
        template = baseline_template(dataset, shots)
        longest = max(len(prompt_ids(tokenizer, example, template)) for example in examples)
        limit = max(baseline_buckets(config, stage, shots))
        if longest > limit:
            field = f"stages.{name}.baseline_prompt" if shots else "data.buckets"
            raise DataError(
                f"stages.{name}.baselines: with {shots} shots the longest prompt has {longest} "
                f"tokens, {field} allows {limit}"
            )
