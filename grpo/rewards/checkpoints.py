"""Process rewards by checkpoints: facts that a good solution passes through (S11).

    checkpoints_substring    0.2 · (how many checkpoints the first <reasoning> has, by characters)
                             0 to 0.2 n for examples with at most n checkpoints
    checkpoints_equations    c · clip(hits / max(n, stated / 2) - wrong · errors, 0, 1)
                             0 to 1; c = 1 with the right answer, `cap` without

The first is "Thinking in Tokens" as published, with its flaws: "4 * 2 = 8" misses 4*2=8, "20-17" is
found within "120-170", the order is free, items with more checkpoints pay more, and a list of all
that may be asked for is rewarded. A range that is too narrow for an example makes its best values
failures, so declare the largest number of checkpoints times 0.2.

The second reads checkpoints and reasoning as `equations`. Hits are the longest common subsequence
of the two: in order, each at most once; only equations that hold are hits, and a checkpoint that
is none is passed over. More than twice as many different equations as checkpoints cost, so that
stating all that might be asked for does not pay. Options:

    match    "equation": both sides are the checkpoint's, up to the order in sums and products;
             "value": any true equation with the checkpoint's result
    wrong    what each different equation that does not hold costs
    cap      share of it that is left where the answer is wrong. Below (weight of the right answer)
             / (weight of this reward) no working makes a wrong answer worth a right one; 0: process
             credit for right answers only
    without  the value for examples without any equation among their checkpoints; None: abstain
    strict   how the answer is read, as in `answer`

The source says neither how much form and outcome weigh beside this, nor what happens without
checkpoints. GSM8K's own calculator annotations are its checkpoints here: 3.17 a row. Its 7 473
training rationales, as completions, have 0.79 of 1 by equations ("equation", nothing for the 95
without), and by characters 0.086: less than half a checkpoint a row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from grpo.rewards import extract
from grpo.rewards.batch import Share
from grpo.rewards.correct import is_gold
from grpo.rewards.equations import Equation, equations_in
from grpo.rewards.extract import REASONING, REASONING_END
from grpo.rewards.order import in_order
from grpo.rewards.trajectory import block

EACH = 0.2
FREE = 2  # equations for each checkpoint


def checkpoints_substring(example: Mapping, completion: str) -> float:
    """What is paid for checkpoints that are found as they are written."""
    reasoning = block(completion, REASONING, REASONING_END) or ""
    return EACH * sum(checkpoint in reasoning for checkpoint in example["checkpoints"])


def stated_in(completion: str) -> list[Equation]:
    """The equations of the first <reasoning> block."""
    return list(equations_in(block(completion, REASONING, REASONING_END) or ""))


def recall(example: Mapping, stated: Sequence[Equation], *, match: str) -> float | None:
    """hits / max(n, stated / 2), by the formula of this module; None where n is 0."""

    def seen(equation: Equation) -> tuple:
        return (equation.key if match == "equation" else "", equation.value)

    listed = [list(equations_in(text))[-1:] for text in example["checkpoints"]]
    wanted = [seen(equation) for found in listed for equation in found]
    if not wanted:
        return None
    hits = in_order(wanted, [seen(equation) for equation in stated if equation.holds])
    return hits / max(len(wanted), len(set(stated)) / FREE)


def checkpoints_equations(
    example: Mapping,
    completion: str,
    *,
    match: Literal["equation", "value"],
    wrong: Share,
    cap: Share,
    without: Share | None,
    strict: bool,
) -> float:
    """The share of checkpoints that are hit, less what is wrong; less of it without the gold."""
    stated = stated_in(completion)
    share = recall(example, stated, match=match)
    if share is None:
        return math.nan if without is None else without
    errors = sum(not equation.holds for equation in set(stated))
    credit = min(max(share - wrong * errors, 0.0), 1.0)
    read = extract.strict if strict else extract.lenient
    return credit if is_gold(read, example, completion) else cap * credit
