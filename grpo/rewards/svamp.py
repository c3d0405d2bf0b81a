r"""The rewards of a published SVAMP run of Gemma 3 1B (S14: thotab13), with their flaws; their sum.

    demo_exact_format, demo_approximate_format     two of the seven are the demo's own (`demo`)
    svamp_answer       of the demo's FORMAT: 3 within 0.01 of the gold, 1.5 within 1, else -1; 0 for
                       what `float` does not read, or unfound                            -1 to 3
    svamp_number       2 if the first [\d.]+ after <answer> is within 0.01 of the gold     0 or 2
    svamp_connectives  0.1 for each of CONNECTIVES that the reasoning has                  0 to 1
    svamp_length       1 for 15 to 400 words of reasoning, 0.5 for more                    0 to 1
    svamp_algebra      0.3 for each of four forms with letters that the reasoning has    0 to 1.2

The reasoning is the first match of <reasoning>(.+?)</reasoning>. Flaws, all kept. Near misses pay:
off by less than one is 1.5, which integers never are, but fractions. Connectives are found within
words: "so" is in "also", "step" in "stepped". Letters are rewarded as algebra wherever they touch a
sign, "(of them)" among them, and "3 + 4 = 7" is none; the source says 1.5 at most, its four forms
give 1.2. Fifteen times any word is a length. nan is -1.
"""

import re
from collections.abc import Mapping

from grpo.rewards.demo import formatted_answer
from grpo.rewards.extract import REASONING, REASONING_END, demo_compatible

NEAR = 0.01
SHORTEST, LONGEST = 15, 400  # words
CONNECTIVES = (
    "step", "first", "next", "then", "therefore", "because", "since", "so", "implies",
    "consequently", "thus", "hence", "given", "solving",
)  # fmt: skip
FORMS = [
    re.compile(pattern)
    for pattern in (r"[a-z]\s*+[-+*/=]\s*+\d", r"\d\s*+[-+*/=]\s*+[a-z]", r"[a-z]\s*+=")
]


def reasoning_of(completion: str) -> str | None:
    """The group of the source's match: a character at least, up to the next closing tag."""
    _, opened, rest = completion.partition(REASONING)
    end = rest.find(REASONING_END, 1) if opened else -1
    return None if end < 0 else rest[:end]


def distance(guess: str | None, gold: str) -> float | None:
    """How far a text is from the gold, both as floats; None where one is no number."""
    try:
        return None if guess is None else abs(float(guess) - float(gold))
    except ValueError:
        return None


def answer(example: Mapping, completion: str) -> float:
    """The score of the formatted answer by its distance."""
    off = distance(formatted_answer(completion), example["answer"])
    if off is None:
        return 0.0
    return 3.0 if off < NEAR else 1.5 if off < 1 else -1.0


def number(example: Mapping, completion: str) -> float:
    """2 if the first digits after <answer> are the gold, else 0."""
    off = distance(demo_compatible(completion), example["answer"])
    return 2.0 if off is not None and off < NEAR else 0.0


def connectives(example: Mapping, completion: str) -> float:
    """A tenth for every connective, each once."""
    reasoning = (reasoning_of(completion) or "").lower()
    return min(1.0, 0.1 * sum(word in reasoning for word in CONNECTIVES))


def length(example: Mapping, completion: str) -> float:
    """1 for a reasoning of the right length, half for a longer one."""
    count = len((reasoning_of(completion) or "").split())
    if count < SHORTEST:
        return 0.0
    return 1.0 if count <= LONGEST else 0.5


def has_letters_in_parentheses(text: str) -> bool:
    r"""Whether \([^)]*[a-z][^)]*\) is found: searched for as it is, it takes cubic time."""
    parts = (part.partition("(")[2] for part in text.split(")")[:-1])
    return any(re.search("[a-z]", part) for part in parts)


def algebra(example: Mapping, completion: str) -> float:
    """Three tenths for every form."""
    reasoning = reasoning_of(completion) or ""
    forms = sum(form.search(reasoning) is not None for form in FORMS)
    return 0.3 * (forms + has_letters_in_parentheses(reasoning))
