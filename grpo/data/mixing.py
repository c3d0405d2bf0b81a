"""Several datasets as one: how often each domain is drawn from.

    p_d ∝ n_d^(1/T)          T = 1: as often as it is large; T → ∞: all domains equally often

as multilingual BERT and T5 (arXiv:1910.10683) sample their languages and tasks. The domain of an
example is what it says itself, or else the name of its dataset.

An epoch has as many places as there are examples. Domain d has c_d of them, p_d of all, rounded so
that the sum is right, but one at least; where they are is a permutation of the epoch (order.py).
The k-th draw of a domain, over all epochs, is number k of its own order: at T = 1 an epoch is a
permutation of everything. All of it is a pure function of the seed and the index.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from grpo.data.examples import Example
from grpo.data.order import example_at


def slots_of(sizes: Sequence[int], temperature: float) -> list[int]:
    """How many places of an epoch each domain has, by largest remainders."""
    total = sum(sizes)
    weights = [(size / max(sizes)) ** (1 / temperature) for size in sizes]
    exact = [total * weight / sum(weights) for weight in weights]
    slots = [max(1, math.floor(x)) for x in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda d: (math.floor(exact[d]) - exact[d], d))
    for d in by_remainder[: max(0, total - sum(slots))]:
        slots[d] += 1
    while sum(slots) > total:  # where some have less than one place
        slots[slots.index(max(slots))] -= 1
    return slots


def mixed(domains: Sequence[str], temperature: float, seed: int) -> Callable[[int], int]:
    """The order of examples of these domains: from an index to a place."""
    places: dict[str, list[int]] = {}
    for place, domain in enumerate(domains):
        places.setdefault(domain, []).append(place)
    parts = list(places.values())
    slots = slots_of([len(part) for part in parts], temperature)

    def place_of(index: int) -> int:
        """The place of the example at an index, counted over all epochs."""
        slot = example_at(seed, index, len(domains))
        for part, own in zip(parts, slots, strict=True):
            if slot < own:
                drawn = index // len(domains) * own + slot
                return part[example_at(seed, drawn, len(part))]
            slot -= own
        raise AssertionError("a slot beyond the last one")

    return place_of


def interleaved(parts: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The examples of some datasets, so that any first ones are of each in proportion.

    Ids are given the name of their dataset, and so are domains where an example has none.
    """
    ranked = [
        ((k + 0.5) / len(part), rank, {"domain": name, **example, "id": f"{name}/{example['id']}"})
        for rank, (name, part) in enumerate(parts.items())
        for k, example in enumerate(part)
    ]
    return [example for *_, example in sorted(ranked, key=lambda row: row[:2])]
