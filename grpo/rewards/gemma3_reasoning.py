r"""The reward of "Gemma3 Reasoning" (S14: kotlarmilos), with its flaws.

    0     if fewer than 3 words, or fewer than 3 in 10 of the words are different
    1     if the number found is within 0.001 of the gold; else
    0.2 [a word or sign of steps] + 0.1 [a number found] + 0.1 [the end is one of . ! ? )]    0 to 1

The number: after the first ####, else after the first "answer is", else in the first \boxed{}, else
the last one of the text; commas are dropped. Flaws, all kept. No form is asked for, and a text that
ends "not 72" is right. A comma alone is a number to the patterns, and makes none: the source ends
with an error there, here no number is found. Nothing is said of traces with a right answer.

The source's patterns are quadratic in runs of digits; here these are taken whole.
"""

import re
from collections import deque
from collections.abc import Mapping

NUMBER = r"([+-]?[\d,]++\.?\d*+)"
ANNOUNCED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"####\s*+" + NUMBER,
        r"answer\s++is[:\s]*+\$?" + NUMBER,
        r"\\boxed\{" + NUMBER + r"\}",
    )
]
LAST = re.compile(NUMBER)
STEPS = re.compile(r"step|then|therefore|because|(?<!\d)\d++\s*+[-+*/]\s*+\d", re.IGNORECASE)
NEAR = 1e-3


def number_of(text: str) -> float | None:
    """The number that the source's cascade finds."""
    found = next((match for pattern in ANNOUNCED if (match := pattern.search(text))), None)
    if found is None:
        last = deque(LAST.finditer(text), maxlen=1)
        found = last[0] if last else None
    try:
        return None if found is None else float(found[1].replace(",", ""))
    except ValueError:
        return None


def gemma3_reasoning(example: Mapping, completion: str) -> float:
    """1 for a right number, a little for the looks of a trace, nothing for repetition."""
    words = completion.split()
    if len(words) < 3 or len(set(words)) / len(words) < 0.3:
        return 0.0
    guess, gold = number_of(completion), number_of(f"#### {example['answer']}")
    if guess is not None and gold is not None and abs(guess - gold) < NEAR:
        return 1.0
    ends = completion.strip().endswith((".", "!", "?", ")"))
    return 0.2 * (STEPS.search(completion) is not None) + 0.1 * (guess is not None) + 0.1 * ends
