"""How much of a sequence stands in another one, in order."""

from collections.abc import Hashable, Sequence


def in_order(wanted: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence: each of both counts at most once."""
    best = [0] * (len(wanted) + 1)  # best[i]: of the first i wanted and what was found so far
    known = set(wanted)
    for item in found:
        if item not in known:
            continue
        before = 0  # best[i] without this item
        for i, one in enumerate(wanted):
            here = best[i + 1]
            best[i + 1] = before + 1 if one == item else max(here, best[i])
            before = here
    return best[-1]
