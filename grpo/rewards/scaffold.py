"""A reward for a scaffold of sections (S8): the headings of a list, each once, in order, filled.

    scaffold = (headings in place) / (headings listed)                                  0 to 1

of the first <reasoning> block. A heading stands at the beginning of a line, in any case, perhaps
behind marks of a list or of Markdown: "1. **Identify:** what is asked" has the heading Identify. In
place are those that occur exactly once and have a letter or digit before the next heading, as many
of them as stand in the listed order.

IDEA-E's own headings are not published: they are an option. Known flaw: what a section says is not
looked at, so one word in each is enough; give the reward a small weight, or make it a gate.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from grpo.rewards.extract import REASONING, REASONING_END
from grpo.rewards.order import in_order
from grpo.rewards.trajectory import block

MARKS = re.compile(r"[#*_>•\s-]*+(?:[0-9]{1,2}[.)]\s++)?+[*_\s]*+")


def heading_of(line: str, headings: Sequence[str]) -> tuple[str, str] | None:
    """The first of the headings that a line begins with, and the rest of the line."""
    text = MARKS.sub("", line, count=1)
    for heading in headings:
        rest = text[len(heading) :]
        if text[: len(heading)].lower() == heading.lower() and not rest[:1].isalnum():
            return heading, rest
    return None


def scaffold(example: Mapping, completion: str, *, headings: tuple[str, ...]) -> float:
    """The share of the headings that are in place."""
    reasoning = block(completion, REASONING, REASONING_END) or ""
    longest_first = sorted(headings, key=len, reverse=True)  # "Step 1 b" is not "Step 1"
    found: list[str] = []
    filled: list[bool] = []
    for line in reasoning.split("\n"):
        begun = heading_of(line, longest_first)
        if begun is not None:
            found.append(begun[0])
            filled.append(False)
        rest = line if begun is None else begun[1]
        if filled and any(char.isalnum() for char in rest):
            filled[-1] = True
    times = Counter(found)
    once = [x for x, full in zip(found, filled, strict=True) if full and times[x] == 1]
    return in_order(headings, once) / len(headings)
