r"""Worked solutions made worse in known ways: what a judge of reasoning learns to tell apart.

    number      one number of the reasoning is another one
    deleted     one step is missing
    shuffled    the steps stand in another order

Only what stands between <reasoning> and </reasoning> changes; the answer stays. A step is a line,
or where there is one line only what stands between semicolons, or else a sentence. Every function
takes a text and a source of random numbers, and returns None where it can change nothing.
"""

import re
from collections.abc import Callable

import numpy as np

BLOCK = re.compile(r"(<reasoning>\s*)(.*?)(\s*</reasoning>)", re.DOTALL)
NUMBER = re.compile(r"\d+")
LARGEST_SHIFT = 9
BETWEEN = (re.compile(r"\s*\n\s*"), re.compile(r"\s*;\s*"), re.compile(r"(?<=[.!?])\s+"))


def steps_of(reasoning: str) -> tuple[list[str], list[str]]:
    """The steps, and what stands between each two of them."""
    for between in BETWEEN:
        if gaps := between.findall(reasoning):
            return between.split(reasoning), gaps
    return [reasoning], []


def joined(steps: list[str], gaps: list[str]) -> str:
    """The reasoning of some steps."""
    return steps[0] + "".join(gap + step for gap, step in zip(gaps, steps[1:], strict=True))


def number(reasoning: str, random: np.random.RandomState) -> str | None:
    """With one number of it up to nine above or below, and never below 0."""
    found = list(NUMBER.finditer(reasoning))
    if not found:
        return None
    place = found[random.randint(len(found))]
    value = int(place[0])
    shifts = [shift for shift in range(-LARGEST_SHIFT, LARGEST_SHIFT + 1) if shift]
    others = [value + shift for shift in shifts if value + shift >= 0]
    other = others[random.randint(len(others))]
    return f"{reasoning[: place.start()]}{other}{reasoning[place.end() :]}"


def deleted(reasoning: str, random: np.random.RandomState) -> str | None:
    """Without one of its steps, of which there are two at least."""
    steps, gaps = steps_of(reasoning)
    if len(steps) < 2:
        return None
    missing = random.randint(len(steps))
    kept = steps[:missing] + steps[missing + 1 :]
    return joined(kept, gaps[: len(kept) - 1])


def shuffled(reasoning: str, random: np.random.RandomState) -> str | None:
    """With its steps in another order that reads differently."""
    steps, gaps = steps_of(reasoning)
    if len(set(steps)) < 2:
        return None
    while True:
        order = [steps[place] for place in random.permutation(len(steps))]
        if order != steps:
            return joined(order, gaps)


CORRUPTIONS: dict[str, Callable[[str, np.random.RandomState], str | None]] = {
    "number": number,
    "deleted": deleted,
    "shuffled": shuffled,
}


def corrupted(text: str, kind: str, random: np.random.RandomState) -> str | None:
    """A completion whose reasoning is worse in one way, or None."""
    block = BLOCK.search(text)
    if block is None:
        return None
    worse = CORRUPTIONS[kind](block[2], random)
    if worse is None or not worse.strip() or worse == block[2]:
        return None
    return text[: block.start(2)] + worse + text[block.end(2) :]
