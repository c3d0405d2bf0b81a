"""A table of rewards: which functions there are, and the entries of a config that choose of them.

    name     of the function in REWARDS; each at most once
    weight   in the total; 0: only logged, or only a gate
    gate     (optional) the name of another entry that multiplies this one; its range: within [0, 1]
    domains  (optional) of the examples that the entry is for, as their `domain` says; none: all
    low      the declared range of the function's values, both ends included
    high
    options  (optional) of the function, by name: `batch` says what a reward function is

What a batch earns by such a table is in `scores`. A function with an entry in FITS learns something
of the training examples first, such as how common each word is, and is given it as `fitted`. That
depends on nothing but the examples and its options: a run that resumes learns the same once more.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo.data.nearest import nearest
from grpo.rewards import demo, svamp
from grpo.rewards.answer import correct_answer
from grpo.rewards.batch import Reward, each, options_of
from grpo.rewards.checkpoints import checkpoints_equations, checkpoints_substring
from grpo.rewards.citations import citations, citations_published
from grpo.rewards.format import strict_format, tag_format
from grpo.rewards.gemma3_reasoning import gemma3_reasoning
from grpo.rewards.given import GIVEN
from grpo.rewards.hybrid import hybrid
from grpo.rewards.labels import label_match
from grpo.rewards.math_verify import math_verify
from grpo.rewards.plan import plan
from grpo.rewards.relay import relay, relay_notebook
from grpo.rewards.scaffold import scaffold
from grpo.rewards.steps import hybrid_steps, trajectory_steps
from grpo.rewards.tfidf import document_frequencies, tfidf
from grpo.rewards.trajectory import trajectory
from grpo.rewards.unit_answer import unit_answer
from grpo.rewards.words import length, repetition

REWARDS: dict[str, Reward] = {
    "correct_answer": each(correct_answer),
    "strict_format": each(strict_format),
    "tag_format": each(tag_format),
    "demo_exact_format": each(demo.exact_format),
    "demo_approximate_format": each(demo.approximate_format),
    "demo_approximate_format_5": each(demo.approximate_format_5),
    "demo_answer": each(demo.answer),
    "demo_numbers": each(demo.numbers),
    "demo_cli_exact_format": each(demo.cli_exact_format),
    "demo_cli_answer": each(demo.cli_answer),
    "demo_cli_numbers": each(demo.cli_numbers),
    "plan": each(plan),
    "trajectory": each(trajectory),
    "trajectory_steps": each(trajectory_steps),
    "hybrid": each(hybrid),
    "hybrid_steps": each(hybrid_steps),
    "checkpoints_substring": each(checkpoints_substring),
    "checkpoints_equations": each(checkpoints_equations),
    "tfidf": each(tfidf),
    "scaffold": each(scaffold),
    "label_match": each(label_match),
    "unit_answer": each(unit_answer),
    "citations": each(citations),
    "citations_published": each(citations_published),
    "repetition": each(repetition),
    "length": each(length),
    "svamp_answer": each(svamp.answer),
    "svamp_number": each(svamp.number),
    "svamp_connectives": each(svamp.connectives),
    "svamp_length": each(svamp.length),
    "svamp_algebra": each(svamp.algebra),
    "gemma3_reasoning": each(gemma3_reasoning),
    "math_verify": each(math_verify),
    "relay": each(relay),
    "relay_notebook": each(relay_notebook),
    **GIVEN,
}
# What a function learns of the training examples, given them and its options.
FITS: dict[str, Callable[[Sequence[Mapping], Mapping], Any]] = {"tfidf": document_frequencies}
# The package that a function needs, imported in processes of the pool alone, and its extra.
PACKAGES = {"math_verify": ("math_verify", "math")}
REQUIRED, OPTIONAL = ("name", "weight", "low", "high"), ("gate", "domains", "options")


class Entry(NamedTuple):
    """A checked line of the table; the function has its options."""

    function: Reward
    weight: float
    gate: str | None
    low: float
    high: float
    domains: tuple[str, ...]
    options: dict[str, Any]


def is_for(entry: Entry, example: Mapping) -> bool:
    """Whether an entry is for an example, by its domain."""
    return not entry.domains or example.get("domain") in entry.domains


def about_options(name: str, options: Mapping) -> Iterator[str]:
    """What is wrong with the names of a function's options."""
    known = options_of(REWARDS[name])
    for option in options:
        if option not in known:
            takes = f"; {name} takes {', '.join(known) or 'none'}"
            yield f"{option}: unknown option{nearest(option, known) or takes}"
    for option, parameter in known.items():
        if option not in options and parameter.default is parameter.empty:
            yield f"{option}: is missing; {name} needs it"


def checked(line: Mapping) -> tuple[str, Entry]:
    """A line's name and entry; what is wrong with it is an error that names the field."""
    for field in line:
        if field not in REQUIRED + OPTIONAL:
            hint = nearest(field, REQUIRED + OPTIONAL)
            raise ValueError(f"rewards: unknown field {field!r}{hint}")
    if missing := [field for field in REQUIRED if field not in line]:
        raise ValueError(f"rewards: {line.get('name', 'an entry')} lacks {', '.join(missing)}")
    name, options = line["name"], dict(line.get("options", {}))
    if name not in REWARDS:
        raise ValueError(f"rewards: unknown reward {name!r}{nearest(name, REWARDS)}")
    for wrong in about_options(name, options):
        raise ValueError(f"rewards.{name}.options.{wrong}")
    weight, low, high = (float(line[field]) for field in ("weight", "low", "high"))
    if not (math.isfinite(weight) and -math.inf < low < high < math.inf):
        raise ValueError(
            f"rewards: {name} has weight {weight} and range [{low}, {high}]: "
            "expected finite numbers, low below high"
        )
    domains = tuple(line.get("domains", ()))
    function = functools.partial(REWARDS[name], **options)
    return name, Entry(function, weight, line.get("gate"), low, high, domains, options)


def reward_table(lines: Iterable[Mapping]) -> dict[str, Entry]:
    """The table of a config's entries, by name."""
    table: dict[str, Entry] = {}
    for line in lines:
        name, entry = checked(line)
        if name in table:
            raise ValueError(f"rewards: {name} is listed twice")
        table[name] = entry
    for fault in faults(table):
        raise ValueError(fault)
    return table


def faults(table: Mapping[str, Entry]) -> Iterator[str]:
    """What is wrong with the entries together."""
    for name, entry in table.items():
        if entry.gate is None:
            continue
        if entry.gate not in table or entry.gate == name:
            others = table.keys() - {name}
            yield (
                f"rewards: the gate of {name} is {entry.gate!r}, which is no other entry"
                f"{nearest(entry.gate, others)}"
            )
            continue
        gate = table[entry.gate]
        if gate.low < 0 or gate.high > 1 or gate.gate is not None:
            yield f"rewards: {entry.gate} as a gate needs a range in [0, 1] and no gate"
        if gate.domains and not (entry.domains and set(entry.domains) <= set(gate.domains)):
            yield (
                f"rewards: {entry.gate} is for the domains {', '.join(gate.domains)} alone, and so "
                f"no gate of {name}: give {name} some of these domains, or {entry.gate} none"
            )


def pays(rewards: Mapping[str, Mapping]) -> bool:
    """Whether a reward of a config's section counts in the total."""
    return any(entry["weight"] for entry in rewards.values())


def fitted(table: Mapping[str, Entry], train: Sequence[Mapping]) -> dict[str, Entry]:
    """The table for a training set: with what its functions learn of it, and domains it has."""
    known = {example["domain"]: True for example in train if "domain" in example}
    ready = {}
    for name, entry in table.items():
        for domain in entry.domains:
            if domain not in known:
                raise ValueError(
                    f"rewards.{name}.domains: no training example is of {domain!r}"
                    f"{nearest(domain, known)}"
                )
        if name in FITS:
            learnt = FITS[name](train, entry.options)
            entry = entry._replace(function=functools.partial(entry.function, fitted=learnt))
        ready[name] = entry
    return ready


def with_values(
    table: Mapping[str, Entry], given: Mapping[str, np.ndarray], examples: Sequence[Mapping]
) -> dict[str, Entry]:
    """The table of a batch for whose completions some values are there already: `given.py`."""
    there = {}
    for name, value_B in given.items():
        asked = [row for row, example in enumerate(examples) if is_for(table[name], example)]
        function = functools.partial(table[name].function, given=value_B[asked])
        there[name] = table[name]._replace(function=function)
    return {**table, **there}


def total_range(table: Mapping[str, Entry]) -> tuple[float, float]:
    """The least and the most that a total can be."""
    ends = []
    for entry in table.values():
        low, high = entry.low, entry.high
        if entry.gate is not None:  # which may be 0
            low, high = min(low, 0.0), max(high, 0.0)
        ends.append(sorted((entry.weight * low, entry.weight * high)))
    return sum(low for low, _ in ends), sum(high for _, high in ends)
