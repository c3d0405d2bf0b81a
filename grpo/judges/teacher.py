"""Worked solutions of a teacher: how it is asked for one, and which of its replies are kept.

    instructed    it is told to write reasoning, answer and checkpoints in tags
    as_trained    it is asked the question alone, in the template of its training, and writes
                  reasoning and answer in tags: a policy as its own teacher (STaR, arXiv:2203.14465)

A reply becomes a row as grpo/data/traces.py reads it (S11, "Thinking in Tokens"), or the reason why
it is none:

    form          it is not <reasoning>..</reasoning> <answer>..</answer>, and where it was told so
                  then <checkpoints>..</checkpoints>, each once and nothing else beside them
    wrong         its answer is not the example's, exactly (grpo/rewards/correct.py, strict)
    checkpoints   it has less of them than are needed, or more than MOST

Checkpoints are the lines that a teacher lists and that are in its reasoning, character by
character; or the equations of the reasoning that hold, as it writes them. Either way each is there
once, in the order of the reasoning: whoever is paid for them can earn them all. The source does not
say how its teacher was asked, nor what was done about checkpoints that the solution does not pass.

Deviation from STaR: a question that has no right solution is not asked again with its answer as a
hint.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from grpo.data.domains import domain_of
from grpo.data.examples import Example
from grpo.data.traces import reasoning_of
from grpo.rewards.correct import CORRECT
from grpo.rewards.equations import written_in
from grpo.rewards.extract import strict

Row = dict[str, Any]
COLUMNS = {  # of grpo/data/traces.py
    "domain": "domain", "question": "prompt", "chosen": "chosen", "metadata": "metadata_json",
}  # fmt: skip
OPEN, CLOSE = "<checkpoints>", "</checkpoints>"
MOST = 40  # checkpoints of a solution
SHORTEST = 3  # characters of a checkpoint: "8" would be found anywhere
BULLET = re.compile(r"\A(?:[-*•]|[0-9]{1,3}[.)])\s+")
PROMPT = """\
Solve the problem. Answer in exactly this form, and write nothing before, between or after it:

<reasoning>
Your reasoning, step by step and as short as it can be. Write each calculation as an equation.
</reasoning>
<answer>
The final answer alone.
</answer>
<checkpoints>
The results that a good solution passes through, such as equations: one on each line, copied
character by character from your reasoning, in the order in which they stand there.
</checkpoints>

Problem:
"""


def prompt_of(example: Example) -> str:
    """What a teacher is told."""
    return PROMPT + example["question"]


def question_of(example: Example) -> str:
    """What a policy is asked, to be put into its template."""
    return example["question"]


def checkpoints_of(listed: str, reasoning: str) -> list[str]:
    """The lines that stand in the reasoning, once each, in its order; bullets are no part."""
    lines = [BULLET.sub("", line.strip()) for line in listed.split("\n")]
    lines = [line for line in dict.fromkeys(lines) if len(line) >= SHORTEST]
    if len(lines) > MOST:
        return []
    return sorted((line for line in lines if line in reasoning), key=reasoning.find)


def equations_of(reasoning: str) -> list[str]:
    """The equations that hold, as they are written, once each and in order."""
    found = [*dict.fromkeys(text for equation, text in written_in(reasoning) if equation.holds)]
    return found if len(found) <= MOST else []


def trace_of(example: Example, reply: str, *, least: int) -> Row | str:
    """The row of a teacher's reply with `least` checkpoints or more; or why it is not kept."""
    completion, opened, rest = reply.partition(OPEN)
    listed, closed, after = rest.partition(CLOSE)
    if not (opened and closed) or after.strip() or strict(completion) is None:
        return "form"
    return row_of(example, completion, checkpoints_of(listed, reasoning_of(completion)), least)


def own_trace_of(example: Example, completion: str, *, least: int) -> Row | str:
    """The same of a completion that is a solution as it stands."""
    if strict(completion) is None:
        return "form"
    return row_of(example, completion, equations_of(reasoning_of(completion)), least)


def row_of(example: Example, completion: str, checkpoints: Sequence[str], least: int) -> Row | str:
    """The row of a solution; or why it is not kept."""
    if not CORRECT["strict"](example, completion):
        return "wrong"
    if len(checkpoints) < least:
        return "checkpoints"
    metadata = {"checkpoints": checkpoints, "final_answer": example["answer"]}
    return {
        "domain": domain_of(example),
        "prompt": example["question"],
        "chosen": completion.strip(),
        "metadata_json": json.dumps(metadata),
    }


class Way(NamedTuple):
    """A way to ask: what is said, and what makes a row of the reply."""

    prompt_of: Callable[[Example], str]
    trace_of: Callable[..., Row | str]


WAYS = {
    "instructed": Way(prompt_of, trace_of),
    "as_trained": Way(question_of, own_trace_of),
}
