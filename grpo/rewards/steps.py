"""How much of the working holds, and two published rewards with that for their process term.

    v = holding / max(stated, least)          of the different equations of the first <reasoning>

    trajectory_steps = p · v + (1 - p) · right                0 to 1: `trajectory` (S5), repaired
    hybrid_steps     = 0.1 F + 0.3 D + 0.6 A                  0 to 1: `hybrid` (S13), repaired

Both originals look at the words: how many there are, and which lines begin with "-". v looks at
what is stated (`equations`), and neither length nor wording changes it. Saying an equation again
counts for nothing, and no equation at all is 0. Options:

    process         p; 0.6 are the 60 to 40 which S5 meant, and which its terms make 43 to 57
    least           fewer equations count as if the missing ones were wrong; 1: any one will do
    about_question  only equations about the question count (`equations.about`)
    steps           what D is: "equations" (v), or "checkpoints" (`checkpoints.recall`)
    strict          how the answer is read, as in `answer`; right and A are 1 or 0

F is `strict_format`. A outweighs the rest: the best wrong completion has 0.4, the poorest right one
0.6. In trajectory_steps it does not: at p = 0.6 true equations and a wrong answer are worth more
than a right answer alone, as S5 has it.

Known flaws: an equation may hold and be no step of the solution. With `about_question` it must at
least begin with the problem's numbers, and with `least` one of them is not enough; an equation that
holds can still be made of any of these. Steps in words are not seen.
"""

from collections.abc import Mapping
from typing import Literal

from grpo.rewards.answer import correct_answer
from grpo.rewards.batch import Count, Share
from grpo.rewards.checkpoints import recall, stated_in
from grpo.rewards.equations import about
from grpo.rewards.format import strict_format


def holding_share(example: Mapping, completion: str, *, about_question: bool, least: int) -> float:
    """v, by the formula of this module."""
    stated = list(dict.fromkeys(stated_in(completion)))
    if about_question:
        stated = about(example["question"], stated)
    return sum(equation.holds for equation in stated) / max(len(stated), least)


def trajectory_steps(
    example: Mapping,
    completion: str,
    *,
    process: Share,
    least: Count,
    about_question: bool,
    strict: bool,
) -> float:
    """The working that holds, and a right answer, in the shares that `process` says."""
    share = holding_share(example, completion, about_question=about_question, least=least)
    return process * share + (1 - process) * correct_answer(example, completion, strict=strict)


def hybrid_steps(
    example: Mapping,
    completion: str,
    *,
    steps: Literal["equations", "checkpoints"],
    least: Count,
    about_question: bool,
    strict: bool,
) -> float:
    """Form, the working that holds or meets the checkpoints, and above all a right answer."""
    if steps == "checkpoints":
        working = recall(example, stated_in(completion), match="equation")
        if working is None:
            raise ValueError("the example has no checkpoints that are equations")
    else:
        working = holding_share(example, completion, about_question=about_question, least=least)
    right = correct_answer(example, completion, strict=strict)
    return 0.1 * strict_format(example, completion) + 0.3 * working + 0.6 * right
