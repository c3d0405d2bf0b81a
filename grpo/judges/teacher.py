"""Worked solutions of a teacher: how it is asked for one, and which of its replies are kept.

A teacher writes reasoning, answer and checkpoints in tags. A reply becomes a row as
grpo/data/traces.py reads it (S11, "Thinking in Tokens"), or the reason why it is none:

    form          it is not <reasoning>..</reasoning> <answer>..</answer> and then
                  <checkpoints>..</checkpoints>, each once and nothing else beside them
    wrong         its answer is not the example's, exactly (grpo/rewards/correct.py, strict)
    checkpoints   none of those it lists stands in its reasoning, or it lists more than MOST

Of the checkpoints those are kept that are in the reasoning, character by character, in the order
in which they first stand there: whoever is paid for them can earn them all. The source does not say
how its teacher was asked, nor what was done about checkpoints that the solution does not pass.
"""

import json
import re
from typing import Any

from grpo.data.domains import domain_of
from grpo.data.examples import Example
from grpo.data.traces import reasoning_of
from grpo.rewards.correct import CORRECT
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
    """What the teacher is asked."""
    return PROMPT + example["question"]


def checkpoints_of(listed: str, reasoning: str) -> list[str]:
    """The lines that stand in the reasoning, once each, in its order; bullets are no part."""
    lines = [BULLET.sub("", line.strip()) for line in listed.split("\n")]
    lines = [line for line in dict.fromkeys(lines) if len(line) >= SHORTEST]
    if len(lines) > MOST:
        return []
    return sorted((line for line in lines if line in reasoning), key=reasoning.find)


def trace_of(example: Example, reply: str) -> Row | str:
    """The row of a reply; or why it is not kept."""
    completion, opened, rest = reply.partition(OPEN)
    listed, closed, after = rest.partition(CLOSE)
    if not (opened and closed) or after.strip() or strict(completion) is None:
        return "form"
    if not CORRECT["strict"](example, completion):
        return "wrong"
    checkpoints = checkpoints_of(listed, reasoning_of(completion))
    if not checkpoints:
        return "checkpoints"
    metadata = {"checkpoints": checkpoints, "final_answer": example["answer"]}
    return {
        "domain": domain_of(example),
        "prompt": example["question"],
        "chosen": completion.strip(),
        "metadata_json": json.dumps(metadata),
    }
