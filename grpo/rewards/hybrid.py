r"""The hybrid reward that a published comparison of systems recommends; with its flaws.

    r = 0.3 F + 0.4 D + 0.3 A                                                 0 to 2.6

    F = 3 if the demo's FORMAT is found (`demo`), else 0
    D = min(0.3 · steps + 0.5 · [more than 50 words], 2) of the first <reasoning> block, where
        steps are the matches of \n\d+\.|\n-
    A = 3 if the first <answer> block is the gold, both as floats, else 0

Flaws, all kept. Eight lines of "- x" and a wrong answer earn 1.7, right prose 1.8. A first step
without a line break before it is no step. More than 50 words is more than 58 % of the gold
rationales have. A gold or an answer with a comma or a currency sign is never right.
"""

import re
from collections.abc import Mapping

from grpo.rewards.demo import exact_format
from grpo.rewards.extract import ANSWER, ANSWER_END, REASONING, REASONING_END
from grpo.rewards.trajectory import block

WORDS = 50
STEP = re.compile(r"\n\d++\.|\n-")


def hybrid(example: Mapping, completion: str) -> float:
    """Form, the looks of the reasoning and a right number, weighted."""
    reasoning = block(completion, REASONING, REASONING_END) or ""
    steps = sum(1 for _ in STEP.finditer(reasoning))
    looks = min(0.3 * steps + 0.5 * (len(reasoning.split()) > WORDS), 2.0)
    answer = block(completion, ANSWER, ANSWER_END)
    try:
        right = 3.0 if answer is not None and float(answer) == float(example["answer"]) else 0.0
    except ValueError:
        right = 0.0
    return 0.3 * exact_format(example, completion) + 0.4 * looks + 0.3 * right
