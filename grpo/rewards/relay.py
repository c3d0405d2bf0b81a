r"""The rewards of the "relay" run of Gemma 2 2B (S14: rohan-patil), twice, with their flaws.

    relay            25 [right] + 2 [reasoning's tags] + 2 [answer's tags] + 1 [a sign of arithmetic
                     in the reasoning] - 15 [violation]                                -15 to 30
    relay_notebook   -10 without all four tags; else 2, and by the first -?\d+\.?\d* of the first
                     <answer> block: -5 if there is none, 25 within 0.01 of the gold, 5 within 10 %,
                     -15 elsewhere; where there is one, 2 for a sign in the first <reasoning> block
                     and 1 for a marker of steps                                       -13 to 30

The first is the README's, which leaves open what right and a violation are: here they are the
notebook's number within 0.01, and a tag that does not occur exactly once. The second is the
function `correctness_focused_reward` of the notebook of the second session (kaggle-2-final.ipynb),
as it is. Two more functions there look for words in the prompt, in which " more " and " total "
always stand, as its examples have them; they are not reproduced.

Flaws, all kept. Any "-" or "=" is arithmetic, "1." and "Then" are steps. 5 points for a near miss.
A gold with a comma is always wrong, "1,080" is 1, "72 or 5" is 72. Tags may be empty or in any
order.
"""

import re
from collections.abc import Mapping

from grpo.rewards.extract import ANSWER, ANSWER_END, REASONING, REASONING_END, TAGS
from grpo.rewards.trajectory import block

NUMBER = re.compile(r"-?\d++\.?\d*+")
NEAR = 0.01
SIGNS = ("+", "-", "*", "/", "=")
STEPS = ("Step", "First", "Then", "1.", "2.")


def first_number(completion: str) -> float | None:
    """The first number of the first <answer> block."""
    found = NUMBER.search(block(completion, ANSWER, ANSWER_END) or "")
    return None if found is None else float(found[0])


def distance(guess: float, gold: str) -> float | None:
    """How far a number is from the gold; None if that is none."""
    try:
        return abs(guess - float(gold))
    except ValueError:
        return None


def has_any(text: str | None, parts: tuple[str, ...]) -> bool:
    """Whether one of the parts stands in a text."""
    return text is not None and any(part in text for part in parts)


def relay(example: Mapping, completion: str) -> float:
    """The sum that the README states."""
    guess = first_number(completion)
    off = None if guess is None else distance(guess, example["answer"])
    right = off is not None and off < NEAR
    counts = [completion.count(tag) for tag in TAGS]
    signs = has_any(block(completion, REASONING, REASONING_END), SIGNS)
    tags = 2.0 * (all(counts[:2]) + all(counts[2:]))
    return 25.0 * right + tags + signs - 15.0 * (counts != [1, 1, 1, 1])


def relay_notebook(example: Mapping, completion: str) -> float:
    """The score that the notebook computes."""
    if any(tag not in completion for tag in TAGS):
        return -10.0
    guess = first_number(completion)
    if guess is None:
        return -3.0
    off = distance(guess, example["answer"])
    if off is None:
        return -13.0  # the source gives up here
    close = off / max(abs(float(example["answer"])), 1) < 0.1
    reasoning = block(completion, REASONING, REASONING_END)
    bonus = 2.0 * has_any(reasoning, SIGNS) + has_any(reasoning, STEPS)
    return 2.0 + bonus + (25.0 if off < NEAR else 5.0 if close else -15.0)
