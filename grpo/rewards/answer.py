"""The reward for a correct answer: 1 if it is the example's number, exactly, else 0.

Equal is `numbers.same_number`: "1,080", "$1080" and "1080.00 clips" are 1080, near misses earn
nothing, and neither does a form. The option `strict` says how the answer is read: True by
`extract.strict`, so that an error of form is a wrong answer; False by `extract.lenient`, wherever
the answer may be: for the part that a gate of the reward table multiplies.
"""

from collections.abc import Mapping

from grpo.rewards import extract
from grpo.rewards.numbers import parse_number, same_number


def correct_answer(example: Mapping, completion: str, *, strict: bool) -> float:
    """1 if the completion's answer is the example's, else 0; a gold that is no number raises."""
    if parse_number(example["answer"]) is None:
        raise ValueError(f"the example's answer is no number: {example['answer'][:50]!r}")
    answer = extract.strict(completion) if strict else extract.lenient(completion)
    return float(answer is not None and same_number(answer, example["answer"]))
