"""Whether a completion is correct, read in four ways.

strict     the whole completion has the form, and its answer is the gold's number
lenient    the answer wherever it may be
demo       float(first number after <answer>) = float(gold), as the Tunix demo counts
partial    of the demo: within 10 % of the gold
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from grpo.data.examples import Example
from grpo.rewards.extract import demo_compatible, lenient, strict
from grpo.rewards.numbers import same_number


def is_gold(extract: Callable[[str], str | None], example: Mapping, completion: str) -> bool:
    """Whether the extracted answer is the gold, exactly; golds that are no number as texts."""
    answer, gold = extract(completion), example["answer"]
    if answer is None:
        return False
    return same_number(answer, gold) or answer.strip() == gold.strip()


def demo_ratio(example: Mapping, completion: str) -> float:
    """The demo's answer over the gold: 1 is correct; NaN where the demo fails."""
    try:
        answer, gold = float(demo_compatible(completion) or "nan"), float(example["answer"])
    except ValueError:
        return math.nan
    if answer == gold:
        return 1.0
    return answer / gold if gold else math.nan


CORRECT: dict[str, Callable[[Mapping, str], bool]] = {
    "strict": lambda example, text: is_gold(strict, example, text),
    "lenient": lambda example, text: is_gold(lenient, example, text),
    "demo": lambda example, text: demo_ratio(example, text) == 1.0,
    "partial": lambda example, text: 0.9 <= demo_ratio(example, text) <= 1.1,
}


def correct(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """By way of reading: which completions are correct."""
    pairs = list(zip(examples, texts, strict=True))
    return {name: np.array([judge(*pair) for pair in pairs]) for name, judge in CORRECT.items()}
