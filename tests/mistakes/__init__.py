"""Tables of planted mistakes, which tests/mutations.py makes one at a time."""

from typing import NamedTuple


class Mistake(NamedTuple):
    """A change of `old` (found exactly once) to `new`, and the test that is to notice."""

    what: str
    file: str
    old: str
    new: str
    test: str
