"""Which samples of a problem say the same answer, for a vote among them.

    numbers   two answers are one vote if they are the same number, exactly; others by their text
    strings   if they are spelt alike without $ , £ €, white space around, full stops at the end,
              and case: as the public "supervised fine-tuning full" notebook votes

The answer is the lenient one (grpo/rewards/extract.py). Flaws of strings, kept to compare: 72 and
72.0 vote against each other, 3,5 votes with 35, and is right where 35 is the gold.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from grpo.algorithms.accuracy_estimates import NO_ANSWER
from grpo.rewards.extract import lenient
from grpo.rewards.numbers import parse_number

LEFT_OUT = str.maketrans("", "", "$,£€")


def number_votes(samples: Sequence[str], right_G: np.ndarray) -> np.ndarray:
    """A number for each answer, the same one for equal numbers; NO_ANSWER without one."""
    values: list[tuple[Fraction | str, bool] | None] = []
    for text, is_right in zip(samples, right_G, strict=True):
        answer = lenient(text)
        if answer is None:
            values.append(None)
            continue
        number = parse_number(answer)
        # 50% and 0.5 are both the gold's 50%, but not each other: right answers vote together.
        value = "right" if is_right else answer.strip() if number is None else number
        values.append((value, bool(is_right)))
    return numbered(values)


def string_votes(samples: Sequence[str], gold: str) -> tuple[np.ndarray, np.ndarray]:
    """A number for each spelling, and which of them is the gold's."""
    answers = [lenient(text) for text in samples]
    spellings = [None if answer is None else spelling(answer) for answer in answers]
    return numbered(spellings), np.array([text == spelling(gold) for text in spellings])


def spelling(answer: str) -> str:
    """What is left of an answer's text."""
    return answer.translate(LEFT_OUT).strip().rstrip(".").lower()


def numbered(values: Iterable) -> np.ndarray:
    """Different values numbered as they come, NO_ANSWER for None."""
    known: dict = {}
    return np.array(
        [NO_ANSWER if x is None else known.setdefault(x, len(known)) for x in values], int
    )
