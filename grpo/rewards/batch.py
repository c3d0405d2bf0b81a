"""One reward function on a batch: a value for each completion, whatever goes wrong.

    reward(examples, completions, *, <options>)          B values, for B examples and completions
    each(f),  f(example, completion, *, <options>)       the simple kind: one completion at a time

The options are what a config gives the function by name; their annotations say what values they
may have (grpo/checks/rules.py). `fitted` and `given` are none of them: what the function has learnt
of the training examples (`table`), and what a model says of the batch (`given`). A value is a
number of the declared range, or NaN where the function abstains. It may also be a function without
arguments that returns one: it is called under a deadline of its own, which is all that `each` does.

What fails is NaN, and the first reason is kept: of one value, if that value is wrong, raises, or
takes longer than `seconds`; of the whole batch, if the function itself raises, returns another
number of values, or takes longer than `seconds` times B. The other values stand.
"""

import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from grpo.rewards.deadline import deadline

Reward = Callable[..., Iterable]
Count = Annotated[int, "from 1 on"]
Share = Annotated[float, "from 0 to 1"]
REASON = 200  # characters of a reason that are kept
FROM_STAGE = ("fitted", "given")  # keywords that are no options
ONE_BY_ONE = "one_by_one"  # a mark of the functions that `each` made


def each(function: Callable[..., float]) -> Reward:
    """The batch function of a function of one example and completion; its options are the same."""

    @functools.wraps(function)  # inspect.signature follows to the options
    def reward(examples: Sequence[Mapping], completions: Sequence[str], **options: Any) -> Iterable:
        pairs = zip(examples, completions, strict=True)
        return [functools.partial(function, *pair, **options) for pair in pairs]

    vars(reward)[ONE_BY_ONE] = True
    return reward


def is_each(reward: Reward) -> bool:
    """Whether `each` made a function: its completions may come in any parts of a batch."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    return getattr(reward, ONE_BY_ONE, False)


def options_of(reward: Reward) -> dict[str, inspect.Parameter]:
    """The options of a reward function: its parameters after examples and completions."""
    parameters = [*inspect.signature(reward).parameters.items()][2:]
    return {name: parameter for name, parameter in parameters if name not in FROM_STAGE}


def values(
    reward: Reward,
    examples: Sequence[Mapping],
    completions: Sequence[str],
    *,
    low: float,
    high: float,
    seconds: float,
) -> tuple[np.ndarray, str | None]:
    """The values, NaN where there is none, and the first reason why."""
    size = len(completions)
    value_B, why = np.full(size, np.nan), None
    try:
        with deadline(seconds * size):
            # Tuples: a function that sorts what it is given shall not sort ours.
            returned_B = several(reward(tuple(examples), tuple(completions)), size)
    except Exception as error:  # whatever one function does, the others' values stand
        return value_B, reason(error)
    for i, returned in enumerate(returned_B):
        try:
            with deadline(seconds):
                value_B[i] = number(returned() if callable(returned) else returned, low, high)
        except Exception as error:
            why = why or reason(error)
    return value_B, why


def several(returned: Any, size: int) -> Sequence | np.ndarray:
    """What a reward function returned, if it is as many values as there are completions."""
    if isinstance(returned, str | Mapping) or not isinstance(returned, Iterable):
        raise TypeError(f"returned {type(returned).__name__}, expected {size} values")
    # An array's own elements may be arrays (of JAX); NumPy's are numbers.
    found = np.asarray(returned) if hasattr(returned, "__array__") else list(returned)
    if len(found) != size:
        raise ValueError(f"returned {len(found)} values for {size} completions")
    return found


def number(returned: Any, low: float, high: float) -> float:
    """A value, if it is a number of the range."""
    if isinstance(returned, bool) or not isinstance(
        returned, int | float | np.integer | np.floating
    ):
        raise TypeError(f"returned {type(returned).__name__}, no number")
    if returned != returned:
        raise ValueError("abstained: returned nan")
    if not low <= returned <= high:
        raise ValueError(f"returned {returned!r}, outside [{low}, {high}]")
    return float(returned)


def reason(error: BaseException) -> str:
    """An exception in one short line of ASCII."""
    return short("".join(traceback.format_exception_only(error)))


def short(text: str) -> str:
    """A text as one short line of ASCII."""
    line = " ".join(text.split())
    return line.encode("ascii", "backslashreplace").decode()[:REASON]
