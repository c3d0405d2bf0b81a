r"""Mathematical equality by the package math-verify: 1 if the answer is the example's, else 0.

    math_verify = [verify(parse(gold), parse(answer))]                                  0 or 1

What `correct_answer` cannot compare is equal here where SymPy finds it equal: "\frac{1}{2}", "0.5"
and "50\%"; "x(x+1)" and "x^2+x"; intervals and sets. Both are read as LaTeX, between $ and $ unless
they have some, and only if that is nothing as plain expressions. `strict` says how the answer is
taken from the completion: True by `extract.strict`, False by `extract.lenient`. A gold that cannot
be read raises.

SymPy evaluates what it reads, and some of that ends only with the process ("10000000000!"). So this
function runs in reward processes alone (`reward_workers` of a config), where alone the package is
imported: pip install -e '.[math]'. Its own time limits are off, they would take the timer that
deadline.py needs; a completion that takes too long fails.

Known flaws: words are symbols, so "72 clips" is not 72 (`correct_answer` reads units); "1,2" may be
a number or a list; and brackets in one another take long: 1000 of them half a minute.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from grpo.rewards import extract

MOST = 500  # characters of an answer; longer ones are wrong


def math_verify(example: Mapping, completion: str, *, strict: bool) -> float:
    """1 if the completion's answer equals the example's, else 0."""
    if not (gold := parsed(example["answer"])):
        raise ValueError(f"the example's answer is no expression: {example['answer'][:50]!r}")
    answer = extract.strict(completion) if strict else extract.lenient(completion)
    if answer is None or len(answer) > MOST:
        return 0.0
    package = importlib.import_module("math_verify")
    return float(package.verify(gold, parsed(answer), timeout_seconds=None))


def parsed(text: str) -> list[Any]:
    """The expressions that a text may be."""
    package = importlib.import_module("math_verify")
    shown = text if "$" in text or "\\boxed" in text else f"${text}$"
    return package.parse(shown, parsing_timeout=None) or package.parse(text, parsing_timeout=None)
