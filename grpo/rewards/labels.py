"""A reward for the right label: multiple choice, yes, no and maybe, the classes of a task (S12).

    label_match = [the answer is the gold, one of `labels`]                             0 or 1

The answer is what stands in the one <answer> block, without white space, brackets and punctuation
around it: "(B).", "b" and "B" are the same label, "B or C", "A, B", "option B" and "B: Paris" are
none. Two <answer> blocks are no answer, whatever is in them. `strict` asks for the whole form
(`extract.strict`) as well. A gold that is none of `labels` abstains: the data and the config do not
fit each other.

LegalBench's tasks and PubMedQA's final decision are of this kind. Known flaw: among k labels a
guess is right once in k times, however it was come by.
"""

from collections.abc import Mapping

from grpo.rewards import extract
from grpo.rewards.extract import ANSWER, ANSWER_END
from grpo.rewards.trajectory import block

AROUND = " \t\r\n.,;:!?()[]{}<>\"'*_`"


def bare(label: str) -> str:
    """A label without what may stand around it, in small letters."""
    return " ".join(label.strip(AROUND).lower().split())


def only_answer(completion: str) -> str | None:
    """What stands in the <answer> block, None unless there is exactly one."""
    single = completion.count(ANSWER) == completion.count(ANSWER_END) == 1
    return block(completion, ANSWER, ANSWER_END) if single else None


def label_match(
    example: Mapping, completion: str, *, labels: tuple[str, ...], strict: bool
) -> float:
    """1 if the answer is the example's label, else 0."""
    gold = bare(example["answer"])
    if gold not in [bare(label) for label in labels]:
        raise ValueError(f"the example's answer is no label: {example['answer'][:50]!r}")
    answer = extract.strict(completion) if strict else only_answer(completion)
    return float(answer is not None and bare(answer) == gold)
