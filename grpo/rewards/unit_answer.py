"""The reward for a quantity: the gold's, in whichever unit of its kind (S12, chemistry).

    unit_answer = [|guess in the gold's unit - gold| ≤ tolerance · |gold|]              0 or 1

exactly computed (`units`). "0.5 L" is "500 mL", "2 g" is no "2 kg". Options:

    tolerance  a share of the gold's number; 0: the very quantity
    bare       whether a number without a unit is taken to be in the gold's unit; else it is wrong
    strict     how the answer is read: True by `extract.strict`, False from the one <answer> block

A gold without a unit wants a number without one. A gold that is no quantity abstains. No source is
published for the chemistry systems: this is the project's own. Known flaw: for temperatures the
tolerance is of the gold's own scale, so that 1 % of 25 °C is a quarter of a degree, and of 298.15 K
three of them.
"""

from collections.abc import Mapping

from grpo.rewards import extract
from grpo.rewards.batch import Share
from grpo.rewards.labels import only_answer
from grpo.rewards.units import converted, quantity


def unit_answer(
    example: Mapping, completion: str, *, tolerance: Share, bare: bool, strict: bool
) -> float:
    """1 if the answer is the example's quantity, else 0."""
    gold = quantity(example["answer"])
    if gold is None:
        raise ValueError(f"the example's answer is no quantity: {example['answer'][:50]!r}")
    answer = extract.strict(completion) if strict else only_answer(completion)
    guess = None if answer is None else quantity(answer)
    if guess is None:
        return 0.0
    if guess.unit is None or gold.unit is None:
        comparable = guess.unit is None and (gold.unit is None or bare)
        number = guess.number if comparable else None
    else:
        number = converted(guess, gold.unit)
    return float(number is not None and abs(number - gold.number) <= tolerance * abs(gold.number))
