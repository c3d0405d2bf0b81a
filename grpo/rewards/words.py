"""Rewards for how much is written: repetition and length.

    repetition   the share of n-grams that occurred before, 0 to 1: a penalty, by a negative weight
    length       1 within the band, words / least below it, most / words above it; 0 to 1

Of the whole completion. N-grams are of words (letters and digits, whatever their case), or of
characters with any white space as one, which also sees "aaaa" and texts without spaces. Words of a
length are what stands between white space; a reward function sees no tokens.

Known flaws: repetition sees one completion, so the same text for every prompt is none; a band of
lengths is paid for any words at all. Neither is a reward on its own.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from grpo.rewards.batch import Count

WORD = re.compile(r"[^\W_]++")
Kind = Literal["word", "char"]


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(text.lower())


def units(text: str, kind: str) -> Sequence[str]:
    """What n-grams are made of: words, or characters."""
    return words_of(text) if kind == "word" else " ".join(text.lower().split())


def ngrams(parts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n parts, in order."""
    return list(zip(*(parts[place:] for place in range(n)), strict=False))


def repeated_share(grams: Sequence[tuple[str, ...]]) -> float:
    """The share of n-grams that occurred before; 0 without any."""
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repetition(example: Mapping, completion: str, *, kind: Kind, n: Count) -> float:
    """The share of the completion's n-grams that occurred before."""
    return repeated_share(ngrams(units(completion, kind), n))


def length(example: Mapping, completion: str, *, least: Count, most: Count) -> float:
    """1 for a completion of so many words, less for shorter and longer ones."""
    count = len(completion.split())
    return min(1.0, count / least, most / max(count, 1))
