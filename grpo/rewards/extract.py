r"""The answer out of a completion, three ways; each returns its text, or None.

    strict    the whole completion is <reasoning>..</reasoning> <answer>..</answer>: each tag once,
              in this order, neither block blank, nothing else but white space. What is trained for.
    lenient   the last <answer> block that is not blank, else the last \boxed{}, else the number
              after the last "answer is" or "final answer", else the last number. What the model
              knows, whatever its form: for evaluation, and never a reward on its own.
    demo      the first [\d.]+ after the first <answer>, as the Tunix demo evaluates: digits of any
              script, no sign, "1,080" is 1 and "72 or 5" is 72. To compare with its numbers only.

All are linear: no pattern repeats a repetition, and blocks are found by their tags. Beyond LIMIT
characters a completion has no strict form, and lenient reads the last LIMIT only; demo reads all,
as the demo does, in one scan.
"""

import re
from collections import deque

from grpo.rewards.numbers import NUMBER, only_token

REASONING, REASONING_END, ANSWER, ANSWER_END = TAGS = (
    "<reasoning>",
    "</reasoning>",
    "<answer>",
    "</answer>",
)
LIMIT = 100_000
REACH = 100  # characters after "answer is" in which its number is looked for
ANNOUNCED = re.compile(r"(?:answer\s++is|final\s++answer)", re.IGNORECASE)
BOXED = "\\boxed{"


def strict(completion: str) -> str | None:
    """The answer of a completion that has exactly the form asked for."""
    if len(completion) > LIMIT or any(completion.count(tag) != 1 for tag in TAGS):
        return None
    before, _, rest = completion.partition(REASONING)
    reasoning, _, rest = rest.partition(REASONING_END)
    between, _, rest = rest.partition(ANSWER)
    answer, closed, after = rest.partition(ANSWER_END)
    # In another order a tag stands before or between the blocks, or the last one is not found.
    if before.strip() or between.strip() or after.strip() or not (reasoning.strip() and closed):
        return None
    return answer.strip() or None


def from_its_number(text: str) -> str:
    """A block from its number on, if it has exactly one: "It is 72 clips" -> "72 clips"."""
    token = only_token(text)
    return text[token.start() :] if token else text


def last_block(text: str) -> str | None:
    """The last <answer> block that is not blank; it may be cut off by the end."""
    for block in reversed(text.split(ANSWER)[1:]):
        if answer := block.partition(ANSWER_END)[0].strip():
            return from_its_number(answer)
    return None


def last_box(text: str) -> str | None:
    """What stands in the last \\boxed{}, braces balanced."""
    _, found, rest = text.rpartition(BOXED)
    depth = 1
    for brace in re.finditer("[{}]", rest if found else ""):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return from_its_number(rest[: brace.start()].strip())
    return None


def announced_number(text: str) -> str | None:
    """The first number soon after the last "answer is" or "final answer"."""
    end = max((found.end() for found in ANNOUNCED.finditer(text)), default=-1)
    token = NUMBER.search(text, end) if end >= 0 else None
    return token[0] if token and token.start() <= end + REACH else None


def last_number(text: str) -> str | None:
    """The last number of a text."""
    last = deque(NUMBER.finditer(text), maxlen=1)
    return last[0][0] if last else None


def lenient(completion: str) -> str | None:
    """The answer of a completion, wherever it may be."""
    text = completion[-LIMIT:]
    for find in (last_block, last_box, announced_number, last_number):
        if found := find(text):
            return found
    return None


def demo_compatible(completion: str) -> str | None:
    """What the demo takes for the answer."""
    # Without a number after the first tag there is none after a later one.
    found = re.search(r"[\d.]+", completion.partition(ANSWER)[2])
    return found and found[0]
