r"""The rewards of the Tunix GRPO demo, with their flaws, for comparison: sum them, weight 1 each.

    exact_format          3 if FORMAT is found, else 0
    approximate_format    Σ over the four tags of +0.5 if it occurs once, else -0.5
    approximate_format_5  and ±0.5 for a completion that starts with <reasoning> (later versions)
    answer                of FORMAT's group: 3 the gold's very characters; 1.5 up to white space
                          around; else of the ratio to the gold: 0.5 in [0.9, 1.1], 0.25 in
                          [0.8, 1.2], -1 elsewhere; -0.5 for what `float` does not read; 0 unfound
    numbers               1.5 if the first [\d.]+ after <answer> is the gold as a float, else 0

    FORMAT       ^\s*<reasoning>.+?</reasoning>.*?<answer>(.+?)</answer>\s*$     (MULTILINE, DOTALL)
    CLI's        <reasoning>.+?</reasoning>.*?<answer>(.+?)(?:</answer>|$)       (MULTILINE, DOTALL)

Flaws, all kept. MULTILINE lets ^ and $ match at any line break, so that lines before and after are
allowed. 4 of 9.5 points for a wrong answer in form; 0.5 for a near miss. Golds with a comma are
never a number, golds of 0 never a ratio; "72 clips" and "$72" lose to 70 in `answer` yet earn all
of `numbers`, which ignores signs and takes "72 or 5 or 9" for 72. Line breaks around the answer
cost 1.5. `float` reads other scripts' digits, 1_000, nan and inf. The command line version (cli_*)
drops commas and white space first and knows no 1.5, mends the gold of 0, and ends an answer at the
first line break or the end of the text if no </answer> comes before it.

The patterns' lazy dots are quadratic where tags pile up. As every dot matches everything, the first
place that fits is always as good as a later one, so the same match is found here tag after tag.
"""

from collections.abc import Mapping
from itertools import pairwise

from grpo.rewards.extract import (
    ANSWER,
    ANSWER_END,
    REASONING,
    REASONING_END,
    TAGS,
    demo_compatible,
)


def line_start(text: str) -> int | None:
    """Where the first <reasoning> ends that has only white space before it on its line."""
    parts = text.split(REASONING)
    end = 0
    for i, part in enumerate(parts[:-1]):
        end += len(part) + len(REASONING)
        if "\n" in part[len(part.rstrip()) :] or (i == 0 and not part.strip()):
            return end
    return None


def line_end(text: str, start: int) -> int | None:
    """Where the first </answer> from here begins that has only white space after it on its line."""
    parts = text[start:].split(ANSWER_END)
    place = start
    for i, (part, after) in enumerate(pairwise(parts)):
        place += len(part) + len(ANSWER_END) * (i > 0)
        rest = after[: len(after) - len(after.lstrip())]
        if "\n" in rest or (i == len(parts) - 2 and rest == after):
            return place
    return None


def answer_start(text: str, reasoning: int) -> int | None:
    """Where the answer begins after a reasoning of a character or more, by the first tags."""
    close = text.find(REASONING_END, reasoning + 1)
    opening = text.find(ANSWER, close + len(REASONING_END)) if close >= 0 else -1
    return None if opening < 0 else opening + len(ANSWER)


def formatted_answer(text: str) -> str | None:
    """The group of FORMAT's match, None without one."""
    reasoning = line_start(text)
    start = None if reasoning is None else answer_start(text, reasoning)
    end = None if start is None else line_end(text, start + 1)
    return None if end is None else text[start:end]


def cli_formatted_answer(text: str) -> str | None:
    """The group of the command line version's match, None without one."""
    opening = text.find(REASONING)
    start = None if opening < 0 else answer_start(text, opening + len(REASONING))
    if start is None or start == len(text):
        return None
    ends = text.find(ANSWER_END, start + 1), text.find("\n", start + 1), len(text)
    return text[start : min(end for end in ends if end >= 0)]


def exact_format(example: Mapping, completion: str) -> float:
    """3 if the pattern is found on lines of the completion, else 0."""
    return 3.0 if formatted_answer(completion) is not None else 0.0


def approximate_format(example: Mapping, completion: str) -> float:
    """Half a point for each of the four tags that occurs once, less half for each other."""
    return sum(0.5 if completion.count(tag) == 1 else -0.5 for tag in TAGS)


def approximate_format_5(example: Mapping, completion: str) -> float:
    """The same, and half a point for the very beginning."""
    start = 0.5 if completion.startswith(REASONING) else -0.5
    return approximate_format(example, completion) + start


def closeness(ratio: float) -> float:
    """The score of a number by its ratio to the gold."""
    if 0.9 <= ratio <= 1.1:
        return 0.5
    return 0.25 if 0.8 <= ratio <= 1.2 else -1.0


def answer(example: Mapping, completion: str) -> float:
    """The score of the formatted answer's text and number."""
    guess, gold = formatted_answer(completion), example["answer"]
    if guess is None:
        return 0.0
    if guess == gold:
        return 3.0
    if guess.strip() == gold.strip():
        return 1.5
    try:
        return closeness(float(guess) / float(gold))
    except (ValueError, ZeroDivisionError):
        return -0.5


def numbers(example: Mapping, completion: str) -> float:
    """1.5 if the first digits after <answer> are the gold, else 0."""
    guess = demo_compatible(completion)
    try:
        return 1.5 if guess is not None and float(guess) == float(example["answer"]) else 0.0
    except ValueError:
        return 0.0


def plain(text: str) -> str:
    """A text without white space around it and without commas."""
    return text.strip().replace(",", "")


def cli_exact_format(example: Mapping, completion: str) -> float:
    """3 if the command line version's pattern is found, else 0."""
    return 3.0 if cli_formatted_answer(completion) is not None else 0.0


def cli_answer(example: Mapping, completion: str) -> float:
    """The score of the formatted answer's number, as the command line version has it."""
    guess, gold = cli_formatted_answer(completion), plain(example["answer"])
    if guess is None:
        return 0.0
    if plain(guess) == gold:
        return 3.0
    try:
        number, right = float(plain(guess)), float(gold)
    except ValueError:
        return -0.5
    if number == right:
        return 3.0
    return -1.0 if right == 0 else closeness(number / right)


def cli_numbers(example: Mapping, completion: str) -> float:
    """1.5 if the first digits after <answer> are the gold without its commas, else 0."""
    return numbers({"answer": plain(example["answer"])}, completion)
