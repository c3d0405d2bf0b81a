r"""The "trajectory" reward of a published Gemma-2 notebook, which never ran; with its flaws.

    r = 3 (0.6 · [more than 20 words of reasoning] · 0.5 + 0.4 · [the answer's text is the gold])

of the first <reasoning> and the first <answer> block. Flaws, all kept. The reasoning term stops at
one half, so that the weights are 43 to 57 and not 60 to 40. Twenty-one times the same word is
reasoning, a short right proof is none. Right is the gold's characters: neither 72.0 nor $72 is 72.
In groups of two only the order of {0, 0.9, 1.2, 2.1} counts.
"""

from collections.abc import Mapping

from grpo.rewards.extract import ANSWER, ANSWER_END, REASONING, REASONING_END

WORDS = 20


def block(text: str, opening: str, closing: str) -> str | None:
    """What stands between the first opening tag and the first closing tag after it."""
    _, _, rest = text.partition(opening)
    inside, closed, _ = rest.partition(closing)
    return inside if closed else None


def trajectory(example: Mapping, completion: str) -> float:
    """Half the weight for the number of words, the rest for the gold's characters."""
    reasoning = block(completion, REASONING, REASONING_END)
    answer = block(completion, ANSWER, ANSWER_END)
    words = 0.5 if reasoning is not None and len(reasoning.split()) > WORDS else 0.0
    right = 1.0 if answer is not None and answer.strip() == example["answer"] else 0.0
    return 3 * (0.6 * words + 0.4 * right)
