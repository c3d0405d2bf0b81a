"""GSM8K (arXiv:2110.14168): grade-school word problems with worked solutions.

An answer reads "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\n...\\n#### 72". It becomes

    reasoning    what stands before ####, without the <<...>> of the dataset's calculator
    checkpoints  what stood inside them: "48/2=24"
    answer       what follows ####
    level        the lines of the reasoning, which are its steps

A public "supervised fine-tuning full" notebook wrote parentheses for the annotations' signs
instead: "48/2 = (48/2=24)24", and its model then wrote so too. Hence `calculator`:

    removed        without the annotations, as above
    parentheses    << is (, >> is ), which leaves every result there twice

Golds of a thousand and more are written "1,080". They are kept so for a comparison with what
compares texts, or written "1080".
"""

import functools
import pathlib
import re
from typing import Any

from grpo.data.examples import REQUIRED, DataError, Example, check_columns, text_in
from grpo.data.sources import load

COLUMNS = {"question": "question", "answer": "answer"}  # as the dataset's own files name them
OPTIONAL = {"id"}
CALCULATOR = ("removed", "parentheses")
ANNOTATION = re.compile(r"<<([^<>]*)>>")


def gold_of(answer: str, strip_commas: bool) -> str:
    """What follows the one #### of an answer."""
    if answer.count("####") != 1:
        raise DataError(f"the answer has {answer.count('####') or 'no'} '####' where it needs one")
    gold = answer.split("####")[1].strip()
    gold = gold.replace(",", "") if strip_commas else gold
    if not gold or "\n" in gold:
        raise DataError("what follows '####' is not one line of text")
    return gold


def from_row(
    row: dict[str, Any], columns: dict[str, str], strip_commas: bool, calculator: str
) -> Example:
    """The example in a row of the dataset."""
    answer = text_in(row, columns["answer"])
    rationale = answer.split("####")[0].strip()
    reasoning = ANNOTATION.sub("", rationale)
    if calculator == "parentheses":
        reasoning = rationale.replace("<<", "(").replace(">>", ")")
    example: Example = {"id": text_in(row, columns["id"])} if "id" in columns else {}
    return example | {
        "question": text_in(row, columns["question"]),
        "answer": gold_of(answer, strip_commas),
        "reasoning": reasoning or None,
        "checkpoints": ANNOTATION.findall(rationale),
        "level": max(1, sum(bool(line.strip()) for line in reasoning.split("\n"))),
    }


def load_gsm8k(
    path: str | pathlib.Path,
    columns: dict[str, str],
    strip_commas: bool,
    max_bad: float,
    calculator: str,
) -> tuple[list[Example], dict[str, Any]]:
    """The examples of a file in the dataset's form, and a report as `sources.load` writes it."""
    check_columns(columns, REQUIRED, OPTIONAL)
    convert = functools.partial(
        from_row, columns=columns, strip_commas=strip_commas, calculator=calculator
    )
    return load(path, convert, max_bad)
